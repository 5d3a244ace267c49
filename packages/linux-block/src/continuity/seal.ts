/**
 * The state in which a store was left, whose bytes must be the same when it is opened again. The map of an original
 * starts over unless something proves that it is complete (continuity.ts); the content of a store is given up only if
 * something shows a write:
 *
 * | what              | how it is seen                                                               |
 * | ----------------- | ---------------------------------------------------------------------------- |
 * | a file            | its size, and its modification time to the nanosecond; across boots too      |
 * | a block device    | the sectors that were written and discarded, while it stays the same         |
 * |                   | appearance of the device; across boots its size alone                        |
 * | both              | the first and the last MiB, and a file system's own places: see superblocks.ts |
 *
 * Not compared: the time of the inode's last change. Relabelling, linking, renaming or reading a file as backup
 * programs do (they restore the times) changes it, but no byte. For the same reason a partition's own counters count,
 * but not writes to the disk around it, as by the installer of a boot loader.
 */
import { open } from "node:fs/promises";
import { originalAt } from "../sysfs.js";
import { amounts, grown, incarnationOf } from "./continuity.js";
import { fileReader } from "./device-bytes.js";
import { digestContents } from "./superblocks.js";
import { type OwnWriteCounters, readOwnWriteCounters, untilWritesShow } from "./write-counters.js";

export interface Seal {
  readonly sizeBytes: number;
  /** SHA-256, hexadecimal, of its edges. */
  readonly digest: string;
  /** Of a file. */
  readonly mtimeNs: string | null;
  /** Of a block device. */
  readonly counters: OwnWriteCounters | null;
}

/**
 * Reads the state of an open file or device. Call fsync() first, so that it includes all writes.
 * @param sizeBytes of a device; a file's is looked up
 * @throws the error of open(2) or read(2); LinuxBlockError
 */
export async function readSeal(fd: number, sizeBytes: number, sysfs = "/sys"): Promise<Seal> {
  const path = `/proc/self/fd/${fd}`;
  const { deviceNumber, stat } = await originalAt(path);
  const isFile = deviceNumber === null;
  const lengthBytes = isFile ? Number(stat.size) : sizeBytes;
  const handle = await open(path, "r");
  try {
    const { digest } = await digestContents(fileReader(handle), lengthBytes);
    const counters = isFile ? null : await readOwnWriteCounters(deviceNumber, sysfs);
    return { sizeBytes: lengthBytes, digest, mtimeNs: isFile ? `${stat.mtimeNs}` : null, counters };
  } finally {
    await handle.close();
  }
}

/** The same after the last write: resolves when every later write would show. */
export async function sealNow(fd: number, sizeBytes: number, sysfs?: string): Promise<Seal> {
  const { stat } = await originalAt(`/proc/self/fd/${fd}`);
  const times = { mtimeNs: `${stat.mtimeNs}`, ctimeNs: `${stat.ctimeNs}` };
  if (stat.isFile()) await untilWritesShow(times, times.mtimeNs);
  return readSeal(fd, sizeBytes, sysfs);
}

/** Evidence of a write, as a clause about "it"; undefined if there is none. */
export function writtenSince(before: Seal, now: Seal): string | undefined {
  if (before.sizeBytes !== now.sizeBytes) {
    return `it had ${before.sizeBytes} bytes and has ${now.sizeBytes}`;
  }
  if (before.mtimeNs !== now.mtimeNs) {
    return `it was modified: its time is ${timeOf(now)}, and was ${timeOf(before)}`;
  }
  const written = writtenBetween(before.counters, now.counters);
  if (written !== undefined) return written;
  if (before.digest !== now.digest) return "its first or last bytes have changed";
  return undefined;
}

function writtenBetween(
  before: OwnWriteCounters | null,
  now: OwnWriteCounters | null,
): string | undefined {
  if (before === null || now === null || incarnationOf(before, now) !== "same") return undefined;
  const written = grown(before.writeSectors, now.writeSectors);
  const discarded = grown(before.discardSectors, now.discardSectors);
  if (written === 0 && discarded === 0) return undefined;
  if (written < 0 || discarded < 0) return "its write counters were reset";
  return amounts(written, discarded);
}

function timeOf({ mtimeNs }: Seal): string {
  if (mtimeNs === null) return "that of a device";
  const ns = BigInt(mtimeNs);
  const seconds = new Date(Number(ns / 1_000_000n)).toISOString().slice(0, -5);
  return `${seconds}.${String(ns % 1_000_000_000n).padStart(9, "0")}Z`;
}
