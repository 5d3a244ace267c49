/** The verbs of backups. */
import { STORE_PATHS_TEXT, STORE_WORDS } from "@blksnap/api";
import { storeOptions } from "./backup-place.js";
import { bytes, device } from "./shared-options.js";
import type { Verb } from "./verb.js";

const backups = () => import("./verbs/backups.js");

const fromAny = {
  short: "f",
  describe:
    "what export has written to: a folder, s3://BUCKET/PREFIX, or - for a stream on standard input",
  value: "PATH",
  required: true,
};
const from = {
  short: "f",
  describe: "what export has written to: a folder, or s3://BUCKET/PREFIX",
  value: "PATH",
  required: true,
};
const ofDevice = { short: "d", describe: "only of this original", value: "DEVICE" };
const ofHost = {
  describe: "only of this host: its name, or the beginning of its machine id as --json has it",
  value: "HOST",
};
const at = {
  describe: "beginning of a point's id, or a time: the newest point that is not later",
  value: "POINT",
};

export const backupVerbs: readonly Verb[] = [
  {
    name: "export",
    describe:
      "Back up a device as it is in its snapshot, or in one that is taken for this and destroyed at the " +
      "end. A folder gets a point in time, of which each can be restored and removed by itself; what is " +
      "equal, in all points of all devices and hosts, is stored once",
    options: {
      device,
      to: {
        short: "t",
        describe:
          "folder of backups, made where it is missing, or s3://BUCKET/PREFIX, whose credentials are in " +
          "the environment or ~/.aws/credentials; with --raw: file or block device; -: a stream " +
          "on standard output, for restore --from -, here or elsewhere",
        value: "PATH",
        required: true,
      },
      auto: {
        describe:
          "read only what changed since the last export to there; where that cannot be known, say " +
          "why, and read all",
      },
      since: {
        describe:
          "read only what changed since this changes_number; fail where that cannot be known",
        value: "NUMBER",
      },
      raw: { describe: "make the target the same as the device, byte for byte" },
      qcow2: {
        describe:
          "make the target a folder of qcow2 files: a full one, and overlays of what changed since, of " +
          "which QEMU opens each",
      },
      "allocated-only": {
        describe:
          "in a full one, read only what the ext2, ext3 or ext4 of the image has in use, and have zeros for " +
          "the rest; refused where its journal is to be replayed",
      },
      record: {
        describe:
          "with --raw: file that remembers as of which snapshot the copy is; default: beside a file, " +
          "none for a block device. With --to -: as of which the last stream was",
        value: "FILE",
      },
      file: {
        short: "f",
        describe: `store for old data while it runs: ${STORE_PATHS_TEXT} or ${STORE_WORDS.join(", ")}; default: /var/tmp`,
        value: "PATH",
        many: true,
      },
      limit: { short: "l", describe: "most bytes for old data; default: 1G", value: "SIZE" },
      ...storeOptions,
    },
    examples: [
      ["blksnapctl export -d /dev/vg/data --to backups --auto", "full at first, then incremental"],
      ["blksnapctl export -d /dev/vg/data --to s3://backups/hosts --auto", "in an object store"],
      ["blksnapctl export -d /dev/vg/data --to data.img --raw --auto", "a copy, kept up to date"],
      ["blksnapctl export -d /dev/vg/data --to backups -f /var/tmp -l 8G", "more room for writers"],
      [
        "blksnapctl export -d /dev/vg/data --to - --auto --record sent.json > stream",
        "for restore on another host",
      ],
      [
        "blksnapctl export -d /dev/vg/data --to - | blksnapctl restore --from - --to copy.img",
        "through a pipe, as of ssh",
      ],
      ["blksnapctl export -d /dev/vg/data --to vm --qcow2 --auto", "images that QEMU opens"],
    ],
    dataTo: "to",
    load: async () => (await import("./verbs/export.js")).exportDevice,
  },
  {
    name: "restore",
    describe:
      "Write a point in time to a file or block device, each part checked; or what a stream has: all of " +
      "it, or what changed since the copy that is there. Until all is there the target does not look complete. " +
      "With --nbd, show a point to NBD clients without restoring it",
    options: {
      from: fromAny,
      to: {
        short: "t",
        describe: "file, or a block device that nothing uses; required unless --nbd is given",
        value: "PATH",
      },
      nbd: {
        describe:
          "in place of --to: serve the point at this unix socket, read-only, until interrupted, and " +
          "print its address",
        value: "SOCKET",
      },
      at,
      device: ofDevice,
      host: ofHost,
      delta: { describe: "compare with what is there, and write only what differs" },
      record: {
        describe:
          "of a stream: file that remembers as of which snapshot the copy is; default: beside a file, " +
          "none for a block device",
        value: "FILE",
      },
      ...storeOptions,
    },
    examples: [
      ["blksnapctl restore --from backups --to restored.img", "the newest point"],
      [
        "blksnapctl restore --from backups --to restored.img --at 2038-01-01T06:00Z",
        "an earlier one",
      ],
    ],
    load: async () => (await import("./verbs/restore.js")).restorePoint,
  },
  {
    name: "list",
    describe: "List the points in time that a folder of backups has",
    options: { from, device: ofDevice, host: ofHost, bytes, ...storeOptions },
    examples: [["blksnapctl list --from backups", "the oldest first"]],
    load: async () => (await backups()).list,
  },
  {
    name: "verify",
    describe:
      "Read what export has written again, and check it; fails where something is damaged, and names it. " +
      "Of a folder or bucket: all that its points in time need. Of raw copies and qcow2 files: what " +
      "they hold, by the checksums of their records",
    options: {
      from: {
        ...fromAny,
        describe:
          "what export has written to: a folder, s3://BUCKET/PREFIX, a raw copy, or - for a stream on " +
          "standard input",
      },
      at,
      device: ofDevice,
      host: ofHost,
      record: {
        describe:
          "of a raw copy: file that remembers what it is; default: beside a file, none for a block device",
        value: "FILE",
      },
      ...storeOptions,
    },
    examples: [["blksnapctl verify --from backups", "all points"]],
    load: async () => (await import("./verbs/verify.js")).verify,
  },
  {
    name: "prune",
    describe:
      "Remove points in time but for those that a rule keeps, of each device of a host for itself. Of each hour, " +
      "day and week (in UTC) the newest counts. gc then frees the room",
    options: {
      from,
      "keep-last": { describe: "keep the newest points", value: "NUMBER" },
      "keep-hourly": {
        describe: "keep a point of each of the last hours that have one",
        value: "NUMBER",
      },
      "keep-daily": {
        describe: "keep a point of each of the last days that have one",
        value: "NUMBER",
      },
      "keep-weekly": {
        describe: "keep a point of each of the last weeks that have one",
        value: "NUMBER",
      },
      "dry-run": { describe: "only say what would be removed" },
      ...storeOptions,
    },
    examples: [
      ["blksnapctl prune --from backups --keep-daily 7 --keep-weekly 8 --dry-run", "what would go"],
      [
        "blksnapctl prune -f backups --keep-last 24 --keep-daily 7 && blksnapctl gc -f backups",
        "go",
      ],
    ],
    load: async () => (await backups()).prunePoints,
  },
  {
    name: "gc",
    describe: "Free what no point in time needs: after prune, and what was left by an export's end",
    options: { from, ...storeOptions },
    examples: [["blksnapctl gc --from backups", "while no export runs there"]],
    load: async () => (await backups()).gc,
  },
];
