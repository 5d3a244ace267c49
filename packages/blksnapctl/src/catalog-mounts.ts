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
      "Mount the file system in an image, read-only. With --device, give only DIR: the device's image " +
      "is mounted",
    options: {
      device: {
        ...device,
        describe: "device whose image to mount, instead of IMAGE",
        required: false,
      },
      id: {
        short: "i",
        describe: "with --device: fail unless the image belongs to this snapshot",
        value: "UUID",
      },
      lv: {
        describe:
          "logical volume in the image, where that is a physical volume of LVM with several of them",
        value: "VOLUME",
      },
      writable: {
        short: "w",
        describe:
          "allow changes; they go into the image, and are lost when its snapshot is destroyed",
      },
    },
    examples: [
      ["blksnapctl mount /dev/ublkb1 /mnt/image", "an image by its block device"],
      ["blksnapctl mount --device /dev/vg/data --id $ID /mnt/image", "the image of a device"],
      ["blksnapctl mount --device /dev/sdb --lv data /mnt/image", "a volume of LVM in the image"],
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
