/** Verbs for the files of an image. */
import { device } from "./shared-options.js";
import type { Verb } from "./verb.js";

const mounts = () => import("./verbs/mount.js");

export const mountVerbs: readonly Verb[] = [
  {
    name: "mount",
    operands: [
      { name: "image", value: "IMAGE" },
      { name: "dir", value: "DIR", optional: true },
    ],
    describe:
      "Mount the file system in an image, read-only. With --device the image is that of the device, " +
      "and DIR alone is given",
    options: {
      device: { ...device, describe: "whose image it is, in place of IMAGE", required: false },
      id: {
        short: "i",
        describe: "with --device: fail unless it is of this snapshot",
        value: "UUID",
      },
      writable: {
        short: "w",
        describe: "files can be changed: in the image, until its snapshot is destroyed",
      },
    },
    examples: [
      ["blksnapctl mount /dev/ublkb1 /mnt/image", "an image by its node"],
      ["blksnapctl mount --device /dev/vg/data --id $ID /mnt/image", "by what it is an image of"],
    ],
    load: async () => (await mounts()).mount,
  },
  {
    name: "umount",
    operands: [{ name: "dir", value: "DIR" }],
    describe: "Unmount an image; anything else is refused",
    options: {},
    examples: [["blksnapctl umount /mnt/image", "before its snapshot is destroyed"]],
    load: async () => (await mounts()).umount,
  },
];
