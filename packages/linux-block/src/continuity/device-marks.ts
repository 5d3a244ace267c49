/**
 * Identifies a block device beyond its number, which another device may have by now.
 *
 * Facts: block/genhd.c (`diskseq`: counts devices since boot, and again when another file or medium is put
 * into one), drivers/md/dm-sysfs.c (`dm/uuid`), drivers/scsi/scsi_sysfs.c and drivers/nvme/host/sysfs.c
 * (`wwid`), drivers/block/loop.c (`loop/offset`).
 */
import { realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { keyOfNumber } from "../device-number.js";
import { attribute, entriesOf, nodeName } from "../sysfs-text.js";

/** From sysfs, null for missing values; a partition has the disk's, and its own place. */
export interface DeviceMarks {
  readonly diskSequence: string | null;
  readonly dmUuid: string | null;
  readonly wwid: string | null;
  /** Name of the file behind a loop device. */
  readonly backingFile: string | null;
  /** First sector of a partition; null for a whole disk. */
  readonly startSector: string | null;
  /** Offset of a loop device in its file; absent in records of earlier versions. */
  readonly loopOffsetBytes?: string | null;
  readonly sectors: string | null;
}

const NAMES = ["dmUuid", "wwid", "backingFile"] as const;

/** @param number "major:minor" @returns undefined if there is no such device */
export function readMarks(number: string, sysfs = "/sys"): DeviceMarks | undefined {
  const own = folderOf(number, sysfs);
  if (own === undefined) return undefined;
  const isPartition = attribute(own, "partition") !== null;
  const disk = isPartition ? dirname(own) : own;
  return {
    diskSequence: attribute(disk, "diskseq"),
    dmUuid: attribute(disk, "dm/uuid"),
    wwid: attribute(disk, "wwid") ?? attribute(disk, "device/wwid"),
    backingFile: attribute(disk, "loop/backing_file"),
    startSector: isPartition ? attribute(own, "start") : null,
    loopOffsetBytes: attribute(disk, "loop/offset"),
    sectors: attribute(own, "size"),
  };
}

/**
 * - `same`: nothing was taken out or put in since
 * - `again`: the same disk or volume after an absence; others may have written to it
 * - `other`: another device with its number
 */
export function compareMarks(before: DeviceMarks, now: DeviceMarks): "same" | "again" | "other" {
  if (before.startSector !== now.startSector) return "other";
  // LOOP_SET_STATUS maps a loop device to other bytes under the same sequence.
  const { loopOffsetBytes = now.loopOffsetBytes } = before;
  if (loopOffsetBytes !== now.loopOffsetBytes) return "other";
  const { diskSequence } = before;
  if (diskSequence !== null && diskSequence === now.diskSequence) return "same";
  if (NAMES.some((name) => before[name] !== null && before[name] !== now[name])) return "other";
  if (diskSequence === null) return "same";
  return hasName(before) ? "again" : "other";
}

function hasName(marks: DeviceMarks): boolean {
  return NAMES.some((name) => marks[name] !== null);
}

/** Numbers of devices with the same names, such as a volume that was activated again. */
export function devicesLike(before: DeviceMarks, sysfs = "/sys"): string[] {
  if (!hasName(before)) return [];
  return entriesOf(join(sysfs, "dev/block")).filter((number) => {
    const marks = readMarks(number, sysfs);
    // Two paths to one disk look alike, and neither is certainly the one.
    return marks?.sectors === before.sectors && compareMarks(before, marks) !== "other";
  });
}

/**
 * A node of a device, by udev's name or the kernel's own.
 * @returns undefined if neither exists
 */
export function nodeOf(number: string, sysfs = "/sys", dev = "/dev"): string | undefined {
  const name = nodeName(number, sysfs);
  const nodes = [`${dev}/block/${number}`, ...(name === undefined ? [] : [`${dev}/${name}`])];
  return nodes.find((node) => numberAt(node) === number);
}

/** Below /dev, where a stat never hangs. */
function numberAt(node: string): string | undefined {
  const stat = statSync(node, { throwIfNoEntry: false });
  return stat?.isBlockDevice() ? keyOfNumber(stat.rdev) : undefined;
}

function folderOf(number: string, sysfs: string): string | undefined {
  try {
    return realpathSync(join(sysfs, "dev/block", number));
  } catch {
    return undefined;
  }
}
