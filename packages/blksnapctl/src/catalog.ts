/**
 * All verbs with their options; verbs for devices, backups, mounts and NBD are in their own files. Verbs of the kernel
 * module's tool keep their names.
 */
import { STORE_PATHS_TEXT, STORE_WORDS } from "@blksnap/api";
import { backupVerbs } from "./catalog-backups.js";
import { mountVerbs } from "./catalog-mounts.js";
import { nbdVerb } from "./catalog-nbd.js";
import { trackerVerbs } from "./catalog-trackers.js";
import { bytes, device } from "./shared-options.js";
import type { OptionSpecs, Verb, VerbGroup } from "./verb.js";

const id = {
  short: "i",
  describe: "uuid of the snapshot, or its first digits",
  value: "UUID",
  required: true,
};
const reader = {
  describe: "read as this reader; each reader name gets all events",
  value: "NAME",
};

/** Options that every verb has. */
export const globalOptions: OptionSpecs = {
  socket: { describe: "socket of the daemon", value: "PATH" },
  json: { short: "j", describe: "print one JSON document" },
  wait: {
    describe: "wait until a daemon serves; default: 60 seconds",
    value: "SECONDS",
    optional: true,
  },
};

const cbt = () => import("./verbs/cbt.js");
const snapshots = () => import("./verbs/snapshots.js");
const events = () => import("./verbs/events.js");

const cbtVerbs: readonly Verb[] = [
  {
    name: "cbtinfo",
    describe: "Show the state of a device's change tracking",
    options: { device },
    examples: [["blksnapctl cbtinfo --device /dev/sdb", "block size, generation, changes_number"]],
    load: async () => (await cbt()).cbtInfo,
  },
  {
    name: "readcbtmap",
    describe: "Write the change map of the last take into a file, one byte per block",
    options: {
      device,
      file: {
        short: "f",
        describe: "file to write; - is standard output",
        value: "FILE",
        required: true,
      },
    },
    examples: [["blksnapctl readcbtmap -d /dev/sdb -f sdb.map", "for a backup program"]],
    load: async () => (await cbt()).readCbtMap,
    isForReader: true,
  },
  {
    name: "markdirtyblock",
    describe: "Mark blocks as changed, in the map of the last take and in the next",
    options: {
      device: { ...device, required: false },
      ranges: {
        short: "r",
        describe: "sectors of 512 bytes to mark",
        value: "FIRST:COUNT",
        many: true,
      },
      file: { short: "f", describe: "mark the blocks that this file occupies", value: "FILE" },
    },
    examples: [
      ["blksnapctl markdirtyblock -d /dev/sdb --ranges 0:8 2048:64", "two ranges of sectors"],
      ["blksnapctl markdirtyblock --file /mnt/data/big.db", "all blocks of a file"],
    ],
    load: async () => (await cbt()).markDirtyBlock,
  },
  {
    name: "diff",
    describe:
      "Show what changed since an earlier snapshot of the same generation. Ranges of kind 'discarded' " +
      "no longer hold data: do not read them, but zero them in the backup",
    options: {
      device,
      since: {
        describe: "changes_number of the earlier snapshot; 0: everything since attach",
        value: "NUMBER",
        required: true,
      },
      generation: { describe: "fail unless this is still the generation", value: "UUID" },
      format: {
        describe: "ranges (a table), raw, nbd (as nbdinfo --map) or json",
        value: "FORMAT",
      },
      raw: { describe: "print FIRST:COUNT in sectors, one range per line; same as --format raw" },
      files: {
        describe: "name the changed files of an ext2, ext3, ext4 or XFS, as found in the image",
      },
      map: { describe: "draw the device on one line, even if the output is not a terminal" },
      bytes,
    },
    examples: [
      ["blksnapctl diff --device /dev/sdb --since 3", "as a table"],
      ["blksnapctl diff --device /dev/sdb --since 3 --raw", "for scripts"],
    ],
    load: async () => (await import("./verbs/diff.js")).diff,
    isForReader: true,
  },
];

const snapshotVerbs: readonly Verb[] = [
  {
    name: "snapshot_create",
    describe: "Create a snapshot of devices, to be taken later; prints its uuid",
    options: {
      device: { ...device, describe: "member of the snapshot", many: true, required: false },
      file: {
        short: "f",
        describe: `store: ${STORE_PATHS_TEXT} or ${STORE_WORDS.join(", ")}, filled in this order`,
        value: "PATH",
        many: true,
        required: true,
      },
      limit: {
        short: "l",
        describe: "limit for old data; units K, M, G, T are powers of 1024",
        value: "SIZE",
        required: true,
      },
      "on-overflow": {
        describe:
          "what fails if there is no space for a write's old data. break-snapshot (default): the " +
          "snapshot; the write continues, and the image returns EIO where old data is lost. " +
          "fail-writes: the write, with ENOSPC; the image stays whole, but a file system may turn " +
          "read-only. block-writes[=SECONDS]: nothing at first; writes and their programs wait for " +
          "space, 30 s by default, then the snapshot breaks",
        value: "POLICY",
      },
      persistent: {
        describe:
          "bring the snapshot back after a stop or a power cut; implies persistent trackers",
      },
      "read-only-images": {
        describe:
          "images refuse writes; default: block devices accept writes, which destroy discards",
      },
      "writable-images": { describe: "images accept writes, even if they are only NBD exports" },
    },
    examples: [
      ["ID=$(blksnapctl snapshot_create -d /dev/sdb -d /dev/sdc -f /var/tmp -l 2G)", "two devices"],
      [
        "blksnapctl snapshot_create -d /dev/sdb -f /dev/shm -f /var/tmp -l 8G",
        "the fast store first",
      ],
    ],
    load: async () => (await snapshots()).create,
  },
  {
    name: "snapshot_add",
    describe: "Add a device to a snapshot that is not taken yet; attaches it if necessary",
    options: { id, device },
    examples: [["blksnapctl snapshot_add --id $ID --device /dev/sdd", "one more member"]],
    load: async () => (await snapshots()).add,
    isFinished: true,
  },
  {
    name: "snapshot_take",
    describe: "Freeze all devices of a snapshot at one instant; their images appear",
    options: {
      id,
      "require-freeze": {
        describe:
          "fail unless every file system with data on the devices is frozen. Default: those that " +
          "cannot be frozen (vfat, exfat, any that an error has shut down) are only synced",
      },
    },
    examples: [["blksnapctl snapshot_take --id $ID --json", "images, and how long writers waited"]],
    load: async () => (await snapshots()).take,
    isFinished: true,
  },
  {
    name: "snapshot_destroy",
    describe: "Destroy a snapshot with its images and old data",
    options: { id },
    examples: [["blksnapctl snapshot_destroy --id $ID", "even while an image is read"]],
    load: async () => (await snapshots()).destroy,
    isFinished: true,
  },
  {
    name: "snapshot_info",
    describe: "Show the image of a device in its snapshot, and its error, if any",
    options: {
      device,
      field: {
        short: "f",
        describe: "print only this value: image, front, error_code or nbd_uri",
        value: "FIELD",
      },
    },
    examples: [
      ["mount -o ro $(blksnapctl snapshot_info -d /dev/sdb -f image) /mnt/image", "use an image"],
      ["blksnapctl snapshot_info -d /dev/sdb -f nbd_uri", "address for nbdcopy, qemu-img"],
    ],
    load: async () => (await snapshots()).info,
  },
  nbdVerb,
  {
    name: "snapshot_collect",
    describe: "List the uuids of all snapshots",
    options: {},
    examples: [["for ID in $(blksnapctl snapshot_collect); do echo $ID; done", "each of them"]],
    load: async () => (await snapshots()).collect,
  },
];

const eventVerbs: readonly Verb[] = [
  {
    name: "snapshot_waitevent",
    describe: "Wait for an event of a snapshot and remove it from the queue",
    options: {
      id,
      timeout: { short: "t", describe: "time limit", value: "MILLISECONDS", required: true },
      reader,
    },
    examples: [
      ["blksnapctl snapshot_waitevent --id $ID --timeout 10000", "ten seconds"],
      ["blksnapctl snapshot_waitevent -i $ID -t 10000 --reader backup", "beside other readers"],
    ],
    load: async () => (await events()).waitEvent,
    waits: true,
  },
  {
    name: "snapshot_watcher",
    describe: "Watch a snapshot until it is corrupted or destroyed",
    options: { id, reader },
    examples: [["blksnapctl snapshot_watcher --id $ID &", "beside a backup"]],
    load: async () => (await events()).watcher,
    waits: true,
  },
  {
    name: "events",
    describe: "Print or follow the events of a snapshot, or of the whole daemon; removes none",
    options: {
      id: { ...id, required: false },
      all: {
        describe:
          "events of the whole daemon: devices, snapshots, stores, hooks, the daemon itself",
      },
      follow: { describe: "print new events, too, until the snapshot is destroyed" },
      from: { describe: "with --id and --follow: first sequence number", value: "NUMBER" },
      since: {
        describe:
          "with --all: only events after the one with this sequence number; with its log (both are " +
          "in the JSON), a log that was restarted is noticed",
        value: "[LOG:]NUMBER",
      },
    },
    examples: [
      ["blksnapctl events --id $ID", "all kept events, read or not"],
      ["blksnapctl events --id $ID --follow --json", "one JSON document per line"],
      ["blksnapctl events --all --follow", "everything on this machine, as it happens"],
      ["blksnapctl events --all --follow --json --since 5f0c12ab:17", "resume after event 17"],
    ],
    load: async () => (await events()).events,
    waits: true,
  },
];

const otherVerbs: readonly Verb[] = [
  {
    name: "daemon",
    action: {
      name: "action",
      describe: "upgrade: replace it with the program on disk; stop: stop it",
      choices: ["upgrade", "stop"],
    },
    describe: "Replace the running daemon without an I/O error, or stop it",
    options: {
      keep: {
        describe:
          "with stop: stop even if devices are in use; their users wait for the next daemon",
      },
    },
    examples: [
      ["blksnapctl daemon upgrade", "after a new version was installed"],
      ["blksnapctl daemon stop", "refused while a front or an image is in use"],
      [
        "blksnapctl daemon stop --keep && blksnapd --supervise &",
        "restart by hand; users see a pause",
      ],
    ],
    load: async () => (await import("./verbs/daemon.js")).daemon,
    isFinished: true,
  },
  {
    name: "doctor",
    describe: "Check this host, with or without a running daemon; prints a line per finding",
    options: {
      fix: {
        describe: "repair or remove broken leftovers of blksnap; never touches devices of others",
      },
      "state-dir": {
        describe: "state directory of a daemon that does not use the default",
        value: "PATH",
      },
    },
    examples: [
      ["blksnapctl doctor", "exit status 0: all is well; 1: there are problems"],
      ["blksnapctl doctor --json | jq '.checks[] | select(.state != \"ok\")'", "for programs"],
      ["blksnapctl doctor --fix", "after a crash, before the daemon is started again"],
    ],
    load: async () => (await import("./verbs/doctor.js")).doctor,
  },
  {
    name: "config",
    action: {
      name: "action",
      describe: "check: find mistakes",
      choices: ["check"],
    },
    describe: "Check the daemon's configuration, with or without a running daemon; changes nothing",
    options: {
      file: {
        short: "f",
        describe: "default: /etc/blksnap/blksnap.toml; FILE.d/*.toml is read after it",
        value: "FILE",
      },
    },
    examples: [
      ["blksnapctl config check", "exit status 0: no errors; 1: errors"],
      ["blksnapctl config check --file new.toml --json | jq .problems", "for programs"],
    ],
    load: async () => (await import("./verbs/config.js")).config,
  },
  {
    name: "version",
    describe: "Print the version of the kernel module's interface that the daemon serves",
    options: {},
    examples: [["blksnapctl version --json", "with the daemon's own version"]],
    load: async () => (await import("./verbs/status.js")).version,
  },
  {
    name: "completion",
    action: {
      name: "shell",
      describe: "bash, zsh or fish; default: the one in $SHELL",
      choices: ["bash", "zsh", "fish"],
      optional: true,
    },
    describe: "Print a shell script that completes commands, options and names",
    options: {},
    examples: [["blksnapctl completion bash > blksnapctl.bash", "a script to source"]],
    load: async () => (await import("./verbs/completion.js")).completion,
  },
];

/** In the order of help. */
export const verbGroups: readonly VerbGroup[] = [
  { title: "Devices", verbs: trackerVerbs },
  { title: "Snapshots", verbs: [...snapshotVerbs, ...mountVerbs] },
  { title: "Changes", verbs: cbtVerbs },
  { title: "Events", verbs: eventVerbs },
  { title: "Backups", verbs: backupVerbs },
  { title: "Other", verbs: otherVerbs },
];

export const verbs: readonly Verb[] = verbGroups.flatMap((group) => group.verbs);
