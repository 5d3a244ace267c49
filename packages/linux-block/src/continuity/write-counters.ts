/**
 * The kernel's counts of writes to an original, by any writer.
 *
 * Facts: Documentation/block/stat.rst (fields of `stat`), Documentation/ABI/stable/sysfs-block
 * (`diskseq`, `queue/iostats`), include/linux/part_stat.h (a partition's I/O is counted for it and for
 * the disk, but what goes through the disk's own node is counted for the disk alone), and
 * include/linux/blk_types.h (write-zeroes and secure erase count as writes).
 *
 * Blind to: commands that bypass the block layer (SG_IO, NVMe passthrough), another host on shared storage, writes to
 * the device below (a loop device's file, a member of a RAID array), and writes made while `queue/iostats` was 0.
 */
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { type BlockFolders, blockFolders, originalAt } from "../sysfs.js";
import { attribute, entriesOf } from "../sysfs-text.js";
import { readBootId } from "./boot-mark.js";

export interface WriteCounters {
  /** Boot id of the running kernel; counters begin at 0 in each boot. */
  readonly bootId: string;
  /** Number of the whole disk's incarnation, never used twice in one boot; null before Linux 5.15. */
  readonly diskseq: string | null;
  /**
   * No disk that appeared before this one has gone in this boot, so this one has never been away. If one has, it is
   * unknown which. Absent in records of earlier versions.
   */
  readonly isFirstAppearance?: boolean;
  /**
   * How long this boot had slept until then: no counter covers what ran meanwhile, such as another system after a
   * hibernation. Null if unknown; absent in records of earlier versions.
   */
  readonly sleptMs?: number | null;
  /** 512-byte sectors written since the device appeared; null where they are not counted. */
  readonly writeSectors: number | null;
  /** 512-byte sectors discarded since the device appeared; null where they are not counted. */
  readonly discardSectors: number | null;
  /** Of a regular file; null for a block device, whose times say nothing about its data. */
  readonly mtimeNs: string | null;
  readonly ctimeNs: string | null;
}

/** Like WriteCounters, but only of the device's own node. */
export type OwnWriteCounters = Pick<
  WriteCounters,
  "bootId" | "diskseq" | "writeSectors" | "discardSectors"
>;

type Counters = Pick<WriteCounters, "writeSectors" | "discardSectors">;

const UNKNOWN: Counters = { writeSectors: null, discardSectors: null };
/** Fields of `stat`, counted from 0. */
const WRITE_SECTORS_FIELD = 6;
const DISCARD_SECTORS_FIELD = 13;
/** At least the tick of the kernel with HZ=100, and of vfat. */
const TICK_MS = 20;
const COARSE_TICK_MS = 2_000;
/** Attempts to find a moment at which no partition of the disk moves its counters. */
const STEADY_ATTEMPTS = 50;
/** Most time between reading two clocks. */
const UPTIME_MS = 100;

/** @throws LinuxBlockError DEVICE_NOT_FOUND */
export async function readWriteCounters(
  path: string,
  sysfs = "/sys",
  proc = "/proc",
): Promise<WriteCounters> {
  const { deviceNumber, stat } = await originalAt(path);
  if (deviceNumber !== null) return readBlockWriteCounters(deviceNumber, sysfs, proc);
  return {
    bootId: await readBootId(proc),
    diskseq: null,
    ...UNKNOWN,
    sleptMs: sleptMs(proc),
    mtimeNs: String(stat.mtimeNs),
    ctimeNs: String(stat.ctimeNs),
  };
}

/** @param deviceNumber "major:minor" */
export async function readBlockWriteCounters(
  deviceNumber: string,
  sysfs = "/sys",
  proc = "/proc",
): Promise<WriteCounters> {
  const folders = await blockFolders(deviceNumber, sysfs);
  const counters = folders === undefined ? UNKNOWN : await readCounters(folders);
  const diskseq = folders === undefined ? null : attribute(folders.disk, "diskseq");
  return {
    bootId: await readBootId(proc),
    diskseq,
    isFirstAppearance: noDiskHasGoneBefore(diskseq, sysfs),
    ...counters,
    sleptMs: sleptMs(proc),
    mtimeNs: null,
    ctimeNs: null,
  };
}

/**
 * Sectors written through a device's own node, or by layers on it: for a partition without writes through the disk's
 * node, which may have gone anywhere on the disk.
 * @param deviceNumber "major:minor"
 */
export async function readOwnWriteCounters(
  deviceNumber: string,
  sysfs = "/sys",
  proc = "/proc",
): Promise<OwnWriteCounters> {
  const folders = await blockFolders(deviceNumber, sysfs);
  return {
    bootId: await readBootId(proc),
    diskseq: folders === undefined ? null : attribute(folders.disk, "diskseq"),
    ...(folders !== undefined && isCounted(folders) ? statOf(folders.own) : UNKNOWN),
  };
}

/** The clock of /proc/uptime continues in sleep, the monotonic one does not. */
function sleptMs(proc: string): number | null {
  for (let attempt = 0; attempt < STEADY_ATTEMPTS; attempt++) {
    const fromMs = performance.now();
    const monotonicMs = Number(process.hrtime.bigint() / 1_000_000n);
    const upMs = 1000 * Number(attribute(proc, "uptime")?.split(" ")[0] ?? Number.NaN);
    // Valid only if nothing delayed this between the two.
    if (performance.now() - fromMs > UPTIME_MS) continue;
    return Number.isNaN(upMs) ? null : Math.max(0, Math.round(upMs - monotonicMs));
  }
  return null;
}

/** Numbers are assigned in order, and never again: each missing one belongs to a disk that is gone. */
function noDiskHasGoneBefore(diskseq: string | null, sysfs: string): boolean {
  if (diskseq === null) return false;
  const present = new Set(disks(sysfs).map((disk) => attribute(disk, "diskseq")));
  for (let earlier = 1; earlier < Number(diskseq); earlier++) {
    if (!present.has(String(earlier))) return false;
  }
  return true;
}

function disks(sysfs: string): string[] {
  const folder = join(sysfs, "block");
  return entriesOf(folder).map((name) => join(folder, name));
}

async function readCounters(folders: BlockFolders): Promise<Counters> {
  if (!isCounted(folders)) return UNKNOWN;
  if (folders.partition === null) return statOf(folders.own);
  return partitionCounters(folders);
}

function isCounted({ disk }: BlockFolders): boolean {
  return !["0", null].includes(attribute(disk, "queue/iostats"));
}

/**
 * Sectors written to a partition: through its own node, or anywhere on the disk through the disk's node, which may
 * have hit the partition. The latter is the disk's count beyond its partitions; a removed partition leaves its count
 * in it, so that the sum never decreases.
 */
async function partitionCounters({ own, disk }: BlockFolders): Promise<Counters> {
  let last = "";
  for (let attempt = 0; attempt < STEADY_ATTEMPTS; attempt++) {
    const whole = statOf(disk);
    const partitions = partitionFolders(disk).map((folder) => ({ folder, count: statOf(folder) }));
    const now = JSON.stringify([whole, partitions]);
    // Counters of several devices are consistent only if none moved while they were read.
    if (now === last) {
      const others = partitions.filter(({ folder }) => folder !== own).map(({ count }) => count);
      return {
        writeSectors: difference(whole, others, "writeSectors"),
        discardSectors: difference(whole, others, "discardSectors"),
      };
    }
    last = now;
    if (attempt > 0) await setTimeout(1);
  }
  return UNKNOWN;
}

function difference(
  whole: Counters,
  others: readonly Counters[],
  field: keyof Counters,
): number | null {
  let left = whole[field];
  for (const other of others) {
    const count = other[field];
    if (left === null || count === null) return null;
    left -= count;
  }
  return left === null || left < 0 ? null : left;
}

/**
 * Resolves when any later write to a regular file gives it other times than these: file systems take times from a
 * clock that ticks, and some keep only every second tick.
 * @param comparedNs the one of them that is compared, if not both are
 */
export async function untilWritesShow(
  { mtimeNs, ctimeNs }: Pick<WriteCounters, "mtimeNs" | "ctimeNs">,
  comparedNs?: string,
): Promise<void> {
  if (mtimeNs === null || ctimeNs === null) return;
  const times = comparedNs === undefined ? [mtimeNs, ctimeNs] : [comparedNs];
  const isCoarse = times.every((time) => BigInt(time) % 1_000_000_000n === 0n);
  const tickMs = isCoarse ? COARSE_TICK_MS : TICK_MS;
  const lastMs = Number(BigInt(comparedNs ?? ctimeNs) / 1_000_000n);
  const leftMs = lastMs + tickMs - Date.now();
  if (leftMs > 0) await setTimeout(Math.min(leftMs, tickMs));
}

function partitionFolders(disk: string): string[] {
  return entriesOf(disk)
    .map((name) => join(disk, name))
    .filter((folder) => attribute(folder, "partition") !== null);
}

function statOf(folder: string): Counters {
  const fields = attribute(folder, "stat")?.split(/\s+/) ?? [];
  return {
    writeSectors: count(fields[WRITE_SECTORS_FIELD]),
    discardSectors: count(fields[DISCARD_SECTORS_FIELD]),
  };
}

function count(field: string | undefined): number | null {
  if (field === undefined || !/^\d+$/.test(field)) return null;
  const value = Number(field);
  return Number.isSafeInteger(value) ? value : null;
}
