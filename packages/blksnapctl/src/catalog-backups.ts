/** Verbs for backups. */
import { STORE_PATHS_TEXT, STORE_WORDS } from "@blksnap/api";
import { storeOptions } from "./backup-place.js";
import { bytes, device } from "./shared-options.js";
import type { Verb } from "./verb.js";

const backups = () => import("./verbs/backups.js");

const fromAny = {
  short: "f",
  describe:
    "target of an export: a folder, s3://BUCKET/PREFIX, or - for a stream on standard input",
  value: "PATH",
  required: true,
};
const from = {
  short: "f",
  describe: "target of an export: a folder, or s3://BUCKET/PREFIX",
  value: "PATH",
  required: true,
};
const ofDevice = { short: "d", describe: "only points of this original", value: "DEVICE" };
const ofHost = {
  describe: "only points of this host: its name, or the beginning of its machine_id in list --json",
  value: "HOST",
};
const at = {
  describe: "beginning of a point's id; or a time, for the newest point up to then",
  value: "POINT",
};

export const backupVerbs: readonly Verb[] = [
  {
    name: "export",
    describe:
      "Back up a device as it is in its snapshot. Without one, export takes a snapshot and destroys it at " +
      "the end. In a folder, each export adds a point in time that can be restored and removed on its own; " +
      "data that is equal in several points, devices or hosts is stored once",
    options: {
      device,
      to: {
        short: "t",
        describe:
          "folder of backups, created if missing, or s3://BUCKET/PREFIX, with credentials from the " +
          "environment or ~/.aws/credentials; with --raw: file or block device; -: a stream on " +
          "standard output, for restore --from - on any host",
        value: "PATH",
        required: true,
      },
      auto: {
        describe:
          "read only what changed since the last export to this target; if that is unknown, say " +
          "why and read everything",
      },
      since: {
        describe: "read only what changed since this changes_number; fail if that is unknown",
        value: "NUMBER",
      },
      raw: { describe: "make the target a byte-for-byte copy of the device" },
      qcow2: {
        describe:
          "make the target a folder of qcow2 files: a full one, and overlays with later changes; QEMU " +
          "can open each",
      },
      "allocated-only": {
        describe:
          "in a full export, read only blocks that the image's ext2, ext3 or ext4 uses, and store zeros " +
          "for the rest; refused if the file system's journal needs a replay",
      },
      "no-free": {
        describe:
          "keep the old data of the export's own snapshot until the end, so that others can read its image " +
          "meanwhile; without it, what was read is freed, and writes there copy nothing more",
      },
      record: {
        describe:
          "with --raw: file that records which snapshot the copy is of; default: beside the target " +
          "file, none for a block device. With --to -: file that records the last stream's snapshot",
        value: "FILE",
      },
      file: {
        short: "f",
        describe: `store for old data while the export runs: ${STORE_PATHS_TEXT} or ${STORE_WORDS.join(", ")}; default: /var/tmp`,
        value: "PATH",
        many: true,
      },
      limit: { short: "l", describe: "limit for old data; default: 1G", value: "SIZE" },
      ...storeOptions,
    },
    examples: [
      [
        "blksnapctl export -d /dev/vg/data --to backups --auto",
        "full the first time, then incremental",
      ],
      ["blksnapctl export -d /dev/vg/data --to s3://backups/hosts --auto", "in an object store"],
      ["blksnapctl export -d /dev/vg/data --to data.img --raw --auto", "keep a copy up to date"],
      ["blksnapctl export -d /dev/vg/data --to backups -f /var/tmp -l 8G", "more room for writers"],
      [
        "blksnapctl export -d /dev/vg/data --to - --auto --record sent.json > stream",
        "to be restored on another host",
      ],
      [
        "blksnapctl export -d /dev/vg/data --to - | blksnapctl restore --from - --to copy.img",
        "through a pipe, such as ssh",
      ],
      ["blksnapctl export -d /dev/vg/data --to vm --qcow2 --auto", "images for QEMU"],
    ],
    dataTo: "to",
    load: async () => (await import("./verbs/export.js")).exportDevice,
  },
  {
    name: "restore",
    describe:
      "Write a point in time, or a stream, to a file or block device, and check each part. An incremental " +
      "stream updates an existing copy. Until the end, the target is marked as incomplete. With --nbd, show " +
      "a point to NBD clients without restoring it",
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
      delta: { describe: "compare with the target's content, and write only what differs" },
      record: {
        describe:
          "for a stream: file that records which snapshot the copy is of; default: beside the target " +
          "file, none for a block device",
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
    describe: "List the points in time in a folder of backups",
    options: { from, device: ofDevice, host: ofHost, bytes, ...storeOptions },
    examples: [["blksnapctl list --from backups", "oldest first"]],
    load: async () => (await backups()).list,
  },
  {
    name: "verify",
    describe:
      "Read the output of exports again and check it. Names what is damaged, and then fails. In a " +
      "folder or bucket, checks all data that points need; raw copies and qcow2 files are compared with " +
      "the checksums in their records",
    options: {
      from: {
        ...fromAny,
        describe:
          "target of an export: a folder, s3://BUCKET/PREFIX, a raw copy, or - for a stream on " +
          "standard input",
      },
      at,
      device: ofDevice,
      host: ofHost,
      record: {
        describe:
          "for a raw copy: file with its record; default: beside the copy, none for a block device",
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
      "Remove points in time except those that a rule keeps, separately for each device of each host. " +
      "Rules for hours, days and weeks (in UTC) keep the newest point of each. gc then frees the space",
    options: {
      from,
      "keep-last": { describe: "keep this many of the newest points", value: "NUMBER" },
      "keep-hourly": {
        describe: "keep the newest point of each of the last NUMBER hours that have one",
        value: "NUMBER",
      },
      "keep-daily": {
        describe: "keep the newest point of each of the last NUMBER days that have one",
        value: "NUMBER",
      },
      "keep-weekly": {
        describe: "keep the newest point of each of the last NUMBER weeks that have one",
        value: "NUMBER",
      },
      "dry-run": { describe: "only show what would be removed" },
      ...storeOptions,
    },
    examples: [
      ["blksnapctl prune --from backups --keep-daily 7 --keep-weekly 8 --dry-run", "show only"],
      [
        "blksnapctl prune -f backups --keep-last 24 --keep-daily 7 && blksnapctl gc -f backups",
        "remove, and free the space",
      ],
    ],
    load: async () => (await backups()).prunePoints,
  },
  {
    name: "gc",
    describe: "Free data that no point needs: after prune, or after an export that did not end",
    options: { from, ...storeOptions },
    examples: [["blksnapctl gc --from backups", "while no export runs there"]],
    load: async () => (await backups()).gc,
  },
];
