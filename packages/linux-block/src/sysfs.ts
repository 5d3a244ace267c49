/** A block device's folders in sysfs: its own, and that of its whole disk. */
import type { BigIntStats } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { keyOfNumber } from "./device-number.js";
import { deviceNotFound } from "./errors.js";
import { attribute } from "./sysfs-text.js";

export interface BlockFolders {
  /** Of the device itself. */
  readonly own: string;
  /** Of the whole disk: the device's own unless it is a partition. */
  readonly disk: string;
  /** Number of the partition; null for a whole disk. */
  readonly partition: number | null;
}

/** The target of a path, through links such as those in /dev/mapper and /dev/disk. */
export interface Original {
  /** "major:minor"; null for a regular file. */
  readonly deviceNumber: string | null;
  readonly stat: BigIntStats;
}

export async function originalAt(path: string): Promise<Original> {
  try {
    const status = await stat(path, { bigint: true });
    const number = status.isBlockDevice() ? keyOfNumber(Number(status.rdev)) : null;
    return { deviceNumber: number, stat: status };
  } catch (error) {
    throw deviceNotFound(path, error);
  }
}

/**
 * Undefined if sysfs does not know the device.
 * @param deviceNumber "major:minor"
 */
export async function blockFolders(
  deviceNumber: string,
  sysfs: string,
): Promise<BlockFolders | undefined> {
  let own: string;
  try {
    own = await realpath(join(sysfs, "dev/block", deviceNumber));
  } catch {
    return undefined;
  }
  const number = attribute(own, "partition");
  if (number === null) return { own, disk: own, partition: null };
  return { own, disk: dirname(own), partition: Number(number) };
}
