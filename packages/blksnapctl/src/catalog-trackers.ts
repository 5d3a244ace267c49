/** Verbs for tracked devices. */
import { bytes, device } from "./shared-options.js";
import type { Verb } from "./verb.js";

const trackers = () => import("./verbs/trackers.js");

export const trackerVerbs: readonly Verb[] = [
  {
    name: "attach",
    describe: "Track a device; prints the front, to be used in place of the device",
    options: {
      device,
      persistent: { describe: "keep tracking changes across stops and power cuts" },
      live: {
        describe: "put the front under the device-mapper node; the default if it is in use",
      },
      front: { describe: "never do so; mount the front instead of the device" },
    },
    examples: [
      ["blksnapctl attach --device /dev/vg/data", "then mount the front that it prints"],
      ["blksnapctl attach -d /dev/vg/data --persistent", "for incremental backups after a reboot"],
      ["blksnapctl attach -d /dev/vg/data --live", "while it stays mounted"],
    ],
    load: async () => (await trackers()).attach,
    isFinished: true,
  },
  {
    name: "detach",
    describe: "Stop tracking a device; its CBT is lost unless it was attached with --persistent",
    options: {
      device,
      forget: {
        describe:
          "delete the CBT of a persistent tracker, too, also of one whose device is gone: no boot waits for it any more",
      },
    },
    examples: [
      ["blksnapctl detach -d /dev/vg/data", "after its front was unmounted"],
      ["blksnapctl detach -d /dev/sdb --forget", "whose disk was replaced"],
    ],
    load: async () => (await trackers()).detach,
    isFinished: true,
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
