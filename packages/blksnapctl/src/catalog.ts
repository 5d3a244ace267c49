/**
 * All verbs with their options; those of backups have a file of their own. The names are those of the kernel
 * module's tool, where it has them.
 */
import { STORE_PATHS_TEXT, STORE_WORDS } from "@blksnap/api";
import { backupVerbs } from "./catalog-backups.js";
import { mountVerbs } from "./catalog-mounts.js";
import { nbdVerb } from "./catalog-nbd.js";
import { bytes, device } from "./shared-options.js";
import type { OptionSpecs, Verb, VerbGroup } from "./verb.js";

const id = {
  short: "i",
  describe: "uuid of the snapshot, or its beginning",
  value: "UUID",
  required: true,
};
const reader = {
  describe: "take events under this name; readers with other names get them all the same",
  value: "NAME",
};

/** Options that every verb has. */
export const globalOptions: OptionSpecs = {
  socket: { describe: "socket of the daemon", value: "PATH" },
  json: { short: "j", describe: "print one JSON document" },
  wait: {
    describe: "wait until a daemon serves, 60 seconds if not given",
    value: "SECONDS",
    optional: true,
  },
};

const trackers = () => import("./verbs/trackers.js");
const cbt = () => import("./verbs/cbt.js");
const snapshots = () => import("./verbs/snapshots.js");
const events = () => import("./verbs/events.js");

const trackerVerbs: readonly Verb[] = [
  {
    name: "attach",
    describe: "Track a device; prints the front through which it is used from now on",
    options: {
      device,
      persistent: { describe: "keep the change tracking through stops and power cuts" },
      live: {
        describe: "put the front under the device-mapper node; the default where it is in use",
      },
      front: { describe: "do not: the front is mounted instead of the device" },
    },
    examples: [
      ["blksnapctl attach --device /dev/vg/data", "then mount the front it names"],
      ["blksnapctl attach -d /dev/vg/data --persistent", "incremental backups after a reboot"],
      ["blksnapctl attach -d /dev/vg/data --live", "while it is mounted, and stays so"],
    ],
    load: async () => (await trackers()).attach,
  },
  {
    name: "detach",
    describe: "Stop tracking a device; its CBT is lost, unless it was attached as persistent",
    options: { device, forget: { describe: "keep nothing of a persistent tracker" } },
    examples: [["blksnapctl detach -d /dev/vg/data", "after its front is unmounted"]],
    load: async () => (await trackers()).detach,
  },
  {
    name: "status",
    describe: "Show everything: devices, change tracking, snapshots, stores",
    options: { bytes },
    examples: [
      ["blksnapctl status", "for people"],
      ["blksnapctl status --json | jq .snapshots", "for programs"],
    ],
    load: async () => (await import("./verbs/status.js")).status,
  },
];

const cbtVerbs: readonly Verb[] = [
  {
    name: "cbtinfo",
    describe: "Show the state of a device's change tracking",
    options: { device },
    examples: [["blksnapctl cbtinfo --device /dev/sdb", "block size, generation, number"]],
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
      file: { short: "f", describe: "mark the blocks under this file", value: "FILE" },
    },
    examples: [
      ["blksnapctl markdirtyblock -d /dev/sdb --ranges 0:8 2048:64", "two ranges of sectors"],
      ["blksnapctl markdirtyblock --file /mnt/data/big.db", "wherever the file lies"],
    ],
    load: async () => (await cbt()).markDirtyBlock,
  },
  {
    name: "diff",
    describe:
      "Show what changed since an earlier snapshot of the same generation; of kind 'discarded' is " +
      "what holds no data any more: not to be read, but to be zeroed in the backup",
    options: {
      device,
      since: {
        describe: "changes_number of the earlier snapshot; 0 for all since attach",
        value: "NUMBER",
        required: true,
      },
      generation: { describe: "fail unless the generation is still this one", value: "UUID" },
      format: {
        describe: "ranges (a table), raw, nbd (as nbdinfo --map) or json",
        value: "FORMAT",
      },
      raw: { describe: "print FIRST:COUNT in sectors, a range on a line; --format raw" },
      files: {
        describe: "name the files of an ext4 or XFS that changed, as they are in the image",
      },
      map: { describe: "draw the device on one line, also where the output is no terminal" },
      bytes,
    },
    examples: [
      ["blksnapctl diff --device /dev/sdb --since 3", "as a table"],
      ["blksnapctl diff --device /dev/sdb --since 3 --raw", "for scripts"],
    ],
    load: async () => (await import("./verbs/diff.js")).diff,
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
        describe: "most bytes for old data; units K, M, G, T are powers of 1024",
        value: "SIZE",
        required: true,
      },
      "on-overflow": {
        describe:
          "what gives way when a write's old data finds no room. break-snapshot (default): the " +
          "snapshot; the write continues, and the image reads as EIO where its old data is lost. " +
          "fail-writes: the write, with ENOSPC; the image stays whole, but a file system may turn " +
          "read-only. block-writes[=SECONDS]: nothing at first; writes and their programs wait for " +
          "room, 30 s by default, then the snapshot breaks",
        value: "POLICY",
      },
      persistent: {
        describe:
          "bring it back after a stop or a power cut; attaches its devices as persistent, too",
      },
      "read-only-images": {
        describe: "images refuse writes; without it devices take them, and lose them at destroy",
      },
      "writable-images": { describe: "images take writes, also those that are NBD exports alone" },
    },
    examples: [
      ["ID=$(blksnapctl snapshot_create -d /dev/sdb -d /dev/sdc -f /var/tmp -l 2G)", "two devices"],
      ["blksnapctl snapshot_create -d /dev/sdb -f /dev/shm -f /var/tmp -l 8G", "fast store first"],
    ],
    load: async () => (await snapshots()).create,
  },
  {
    name: "snapshot_add",
    describe: "Add a device to a snapshot that is not taken yet; attaches it if need be",
    options: { id, device },
    examples: [["blksnapctl snapshot_add --id $ID --device /dev/sdd", "one more member"]],
    load: async () => (await snapshots()).add,
  },
  {
    name: "snapshot_take",
    describe: "Freeze all devices of a snapshot at one instant; their images appear",
    options: {
      id,
      "require-freeze": {
        describe:
          "fail unless every file system with data on the devices is frozen. Else those that cannot " +
          "be frozen (vfat, exfat, one that was shut down by an error) are synced instead",
      },
    },
    examples: [["blksnapctl snapshot_take --id $ID --json", "images, and how long writers stood"]],
    load: async () => (await snapshots()).take,
  },
  {
    name: "snapshot_destroy",
    describe: "End a snapshot: its images and its stored data go",
    options: { id },
    examples: [["blksnapctl snapshot_destroy --id $ID", "also while an image is read"]],
    load: async () => (await snapshots()).destroy,
  },
  {
    name: "snapshot_info",
    describe: "Show the image of a device in its snapshot, and its error, if any",
    options: {
      device,
      field: {
        short: "f",
        describe: "print one value alone: image, front, error_code or nbd_uri",
        value: "FIELD",
      },
    },
    examples: [
      ["mount -o ro $(blksnapctl snapshot_info -d /dev/sdb -f image) /mnt/image", "use an image"],
      ["blksnapctl snapshot_info -d /dev/sdb -f nbd_uri", "its address for nbdcopy, qemu-img"],
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
    describe: "Wait for one event of a snapshot and take it out of the queue",
    options: {
      id,
      timeout: { short: "t", describe: "longest wait", value: "MILLISECONDS", required: true },
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
    describe:
      "Print the events of a snapshot, or of the whole daemon, or follow them as they come; takes none away",
    options: {
      id: { ...id, required: false },
      all: {
        describe: "of the whole daemon: devices, snapshots, stores, hooks, the daemon itself",
      },
      follow: { describe: "print new events too, until the snapshot is destroyed" },
      from: { describe: "with --id and --follow: first sequence number", value: "NUMBER" },
      since: {
        describe:
          "with --all: only what comes after this event, by its sequence number; with its log, as " +
          "JSON has both, a log that began anew is noticed",
        value: "[LOG:]NUMBER",
      },
    },
    examples: [
      ["blksnapctl events --id $ID", "all that are kept, read or not"],
      ["blksnapctl events --id $ID --follow --json", "one JSON document per line"],
      ["blksnapctl events --all --follow", "what happens on this machine, as it happens"],
      ["blksnapctl events --all --follow --json --since 5f0c12ab:17", "resumes where it ended"],
    ],
    load: async () => (await events()).events,
    waits: true,
  },
];

const besidesVerbs: readonly Verb[] = [
  {
    name: "daemon",
    action: {
      name: "action",
      describe: "upgrade: change to the program on disk; stop: end the daemon",
      choices: ["upgrade", "stop"],
    },
    describe: "Replace the running daemon without an I/O error, or end it",
    options: {
      keep: {
        describe:
          "with stop: end although devices are in use; their users wait for the next daemon",
      },
    },
    examples: [
      ["blksnapctl daemon upgrade", "after a new version was installed"],
      ["blksnapctl daemon stop", "refused while a front or an image is in use"],
      ["blksnapctl daemon stop --keep && blksnapd --supervise &", "with a pause, by hand"],
    ],
    load: async () => (await import("./verbs/daemon.js")).daemon,
  },
  {
    name: "doctor",
    describe: "Find what is wrong on this host, with or without a daemon, one line each",
    options: {
      fix: {
        describe: "repair or remove what is ours and broken; others' devices are not touched",
      },
      "state-dir": { describe: "of a daemon that has another one", value: "PATH" },
    },
    examples: [
      ["blksnapctl doctor", "exit status 0: all is well; 1: something is not"],
      ["blksnapctl doctor --json | jq '.checks[] | select(.state != \"ok\")'", "for programs"],
      ["blksnapctl doctor --fix", "after a crash, before the daemon is started again"],
    ],
    load: async () => (await import("./verbs/doctor.js")).doctor,
  },
  {
    name: "config",
    action: {
      name: "action",
      describe: "check: find what is wrong with it",
      choices: ["check"],
    },
    describe: "Check the configuration of the daemon, with or without one; changes nothing",
    options: {
      file: {
        short: "f",
        describe: "another one than /etc/blksnap/blksnap.toml; FILE.d/*.toml is read after it",
        value: "FILE",
      },
    },
    examples: [
      ["blksnapctl config check", "exit status 0: a daemon can follow all of it; 1: it can not"],
      ["blksnapctl config check --file new.toml --json | jq .problems", "for programs"],
    ],
    load: async () => (await import("./verbs/config.js")).config,
  },
  {
    name: "version",
    describe: "Print the version of the module's interface that the daemon serves",
    options: {},
    examples: [["blksnapctl version --json", "with the daemon's own version"]],
    load: async () => (await import("./verbs/status.js")).version,
  },
  {
    name: "completion",
    action: {
      name: "shell",
      describe: "bash, zsh or fish; the one in $SHELL if not given",
      choices: ["bash", "zsh", "fish"],
      optional: true,
    },
    describe: "Print the script that teaches a shell to complete commands, options and names",
    options: {},
    examples: [["blksnapctl completion bash > blksnapctl.bash", "to be sourced"]],
    load: async () => (await import("./verbs/completion.js")).completion,
  },
];

/** In the order in which help shows them. */
export const verbGroups: readonly VerbGroup[] = [
  { title: "Devices", verbs: trackerVerbs },
  { title: "Snapshots", verbs: [...snapshotVerbs, ...mountVerbs] },
  { title: "Changes", verbs: cbtVerbs },
  { title: "Events", verbs: eventVerbs },
  { title: "Backups", verbs: backupVerbs },
  { title: "Besides", verbs: besidesVerbs },
];

export const verbs: readonly Verb[] = verbGroups.flatMap((group) => group.verbs);
