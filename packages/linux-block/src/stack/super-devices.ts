/**
 * Devices of a file system that only its superblock names.
 *
 * - f2fs: all devices of mkfs, by their paths at that time, which the kernel opens at each mount.
 * - jfs, reiserfs: the device of the journal, by its number; jfs writes the current one at each mount.
 *
 * Facts: include/linux/f2fs_fs.h (struct f2fs_super_block, struct f2fs_device), fs/f2fs/super.c
 * (f2fs_scan_devices), fs/jfs/jfs_superblock.h, fs/jfs/jfs_mount.c (updateSuper),
 * fs/reiserfs/reiserfs.h (struct reiserfs_super_block_v1), fs/reiserfs/journal.c (journal_init_dev),
 * include/linux/kdev_t.h (new_encode_dev).
 */
import type { DeviceNumber } from "../device-number.js";

/** A superblock that names devices. */
export interface SuperDevices {
  readonly startBytes: number;
  readonly lengthBytes: number;
  /** Undefined if it is no such superblock. */
  devicesIn(superblock: Buffer): NamedDevices | undefined;
}

/** Devices besides the one that the superblock is on. */
export interface NamedDevices {
  readonly paths: readonly string[];
  readonly numbers: readonly DeviceNumber[];
}

const NONE: NamedDevices = { paths: [], numbers: [] };

const F2FS_MAGIC = 0xf2f52010;
const F2FS_DEVICES_AT = 2201;
const F2FS_DEVICES_MAX = 8;
const F2FS_PATH_BYTES = 64;
/** The path, and the number of segments. */
const F2FS_DEVICE_BYTES = F2FS_PATH_BYTES + 4;
const JFS_MAGIC = "JFS1";
const JFS_FLAG_AT = 36;
const JFS_LOG_DEVICE_AT = 64;
const JFS_INLINE_LOG = 0x800;
const REISERFS_JOURNAL_DEVICE_AT = 16;
const REISERFS_MAGIC_AT = 52;
const REISERFS_MAGIC = /^ReIsEr(Fs|2Fs|3Fs)/;

const SUPER_DEVICES: Readonly<Record<string, SuperDevices>> = {
  f2fs: { startBytes: 1024, lengthBytes: 3072, devicesIn: f2fsDevices },
  jfs: { startBytes: 0x8000, lengthBytes: 512, devicesIn: jfsDevices },
  reiserfs: { startBytes: 0x10000, lengthBytes: 512, devicesIn: reiserfsDevices },
};

/** Where the superblock of a mounted file system of this type is; undefined if none names devices. */
export function superDevicesOf(
  fsType: string,
  options: readonly string[],
): SuperDevices | undefined {
  // Without an external journal, the superblock names a former one.
  if (fsType === "jfs" && options.includes("nointegrity")) return undefined;
  return SUPER_DEVICES[fsType];
}

function f2fsDevices(superblock: Buffer): NamedDevices | undefined {
  if (superblock.readUInt32LE(0) !== F2FS_MAGIC) return undefined;
  const paths: string[] = [];
  for (let i = 0; i < F2FS_DEVICES_MAX; i++) {
    const at = F2FS_DEVICES_AT + i * F2FS_DEVICE_BYTES;
    const field = superblock.subarray(at, at + F2FS_PATH_BYTES);
    const end = field.indexOf(0);
    const path = field.subarray(0, end < 0 ? F2FS_PATH_BYTES : end).toString();
    if (path === "") break;
    paths.push(path);
  }
  // The first is the mounted one, under any name.
  return { ...NONE, paths: paths.slice(1) };
}

function jfsDevices(superblock: Buffer): NamedDevices | undefined {
  if (superblock.toString("latin1", 0, 4) !== JFS_MAGIC) return undefined;
  if ((superblock.readUInt32LE(JFS_FLAG_AT) & JFS_INLINE_LOG) !== 0) return NONE;
  return { ...NONE, numbers: [decodeDevice(superblock.readUInt32LE(JFS_LOG_DEVICE_AT))] };
}

function reiserfsDevices(superblock: Buffer): NamedDevices | undefined {
  const magic = superblock.toString("latin1", REISERFS_MAGIC_AT, REISERFS_MAGIC_AT + 9);
  if (!REISERFS_MAGIC.test(magic)) return undefined;
  const number = superblock.readUInt32LE(REISERFS_JOURNAL_DEVICE_AT);
  return number === 0 ? NONE : { ...NONE, numbers: [decodeDevice(number)] };
}

/** The on-disk format of device numbers. */
function decodeDevice(number: number): DeviceNumber {
  return {
    major: (number >>> 8) & 0xfff,
    minor: (number & 0xff) | ((number >>> 12) & 0xfff00),
  };
}
