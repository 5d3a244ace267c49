/**
 * The final state of a raw copy, so that foreign writes to it are found before the next increment is applied. It is
 * the seal of `@blksnap/linux-block`, plus samples of a block device, which has no modification time: the kernel
 * counts writes within a boot, but across boots only the bytes can show them.
 */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { type Seal, sealNow, writtenSince } from "@blksnap/linux-block";

export interface CopySeal extends Seal {
  /** SHA-256 of the starts of partitions, and of places all over a block device; null for a file. */
  readonly samples: string | null;
}

/** Reads that many bytes, or fewer at the end. */
export type ReadAt = (offsetBytes: number, lengthBytes: number) => Promise<Buffer>;

const MIB = 2 ** 20;
/** Includes btrfs's superblock, at 64 KiB. */
const SAMPLE_BYTES = 128 * 1024;
const SPREAD_SAMPLES = 64;
const TABLE_BYTES = MIB;
const PARTITIONS_MAX = 128;

/** Of the master boot record: four entries, then a signature. */
const MBR = { firstAt: 446, entryBytes: 16, entries: 4, startAt: 8, signatureAt: 510 } as const;
const MBR_SIGNATURE = 0xaa55;
const SECTOR_BYTES = 512;
/** Of the GUID partition table, in the device's second block. */
const GPT = { entriesLbaAt: 72, countAt: 80, entryBytesAt: 84, startAt: 32, endAt: 48 } as const;
const GPT_MAGIC = "EFI PART";
const GPT_BLOCKS_BYTES = [512, 4096] as const;

function mbrStarts(table: Buffer): number[] {
  if (table.length < SECTOR_BYTES || table.readUInt16LE(MBR.signatureAt) !== MBR_SIGNATURE)
    return [];
  return Array.from({ length: MBR.entries }, (_, index) => {
    const at = MBR.firstAt + index * MBR.entryBytes;
    return table.readUInt32LE(at + MBR.startAt) * SECTOR_BYTES;
  });
}

function gptStarts(table: Buffer, blockBytes: number): number[] {
  const header = table.subarray(blockBytes, blockBytes + SECTOR_BYTES);
  if (header.toString("latin1", 0, GPT_MAGIC.length) !== GPT_MAGIC) return [];
  const entryBytes = header.readUInt32LE(GPT.entryBytesAt);
  const from = Number(header.readBigUInt64LE(GPT.entriesLbaAt)) * blockBytes;
  const starts: number[] = [];
  const count = Math.min(PARTITIONS_MAX, header.readUInt32LE(GPT.countAt));
  for (let at = from; starts.length < count; at += entryBytes) {
    if (entryBytes < GPT.endAt || at + GPT.endAt > table.length) break;
    starts.push(Number(table.readBigUInt64LE(at + GPT.startAt)) * blockBytes);
  }
  return starts;
}

/** Starts of this table's partitions, and places of the whole device; clipped to the device. */
export function samplePlaces(table: Buffer, sizeBytes: number): readonly number[] {
  const spread = Array.from({ length: SPREAD_SAMPLES }, (_, index) => {
    // Logical volumes and partitions begin at whole MiB.
    return Math.floor((index * sizeBytes) / SPREAD_SAMPLES / MIB) * MIB;
  });
  const partitions = GPT_BLOCKS_BYTES.flatMap((blockBytes) => gptStarts(table, blockBytes));
  const places = new Set([...spread, ...mbrStarts(table), ...partitions]);
  return [...places]
    .filter((place) => place > 0 && place < sizeBytes)
    .sort((one, other) => one - other);
}

export async function samplesOf(read: ReadAt, sizeBytes: number): Promise<string> {
  const table = await read(0, Math.min(TABLE_BYTES, sizeBytes));
  const hash = createHash("sha256");
  for (const place of samplePlaces(table, sizeBytes)) {
    hash.update(`${place}\n`);
    hash.update(await read(place, Math.min(SAMPLE_BYTES, sizeBytes - place)));
  }
  return hash.digest("hex");
}

/** More than a tick of the kernel's clock, and less than an export takes. */
const BACK_TICK_MS = 25;

/**
 * Sets the modification time of a file back by a tick, so that any later write shows, and sealOfOpen() need not wait
 * until it does. It waits where that fails, and where the file system keeps whole seconds. Call it after the last
 * write, before fsync().
 */
export async function backdate(file: FileHandle): Promise<void> {
  const { atimeMs, mtimeMs } = await file.stat();
  if (mtimeMs % 1000 === 0) return;
  await file.utimes(atimeMs / 1000, (mtimeMs - BACK_TICK_MS) / 1000).catch(() => undefined);
}

/**
 * Call it when everything written is durable. Resolves when every later foreign write would show.
 * @throws the error of read(2)
 */
export async function sealOfOpen(file: FileHandle, sizeBytes: number): Promise<CopySeal> {
  const seal = await sealNow(file.fd, sizeBytes);
  if (seal.counters === null) return { ...seal, samples: null };
  const read: ReadAt = async (offsetBytes, lengthBytes) => {
    const data = Buffer.alloc(lengthBytes);
    const { bytesRead } = await file.read(data, 0, lengthBytes, offsetBytes);
    return data.subarray(0, bytesRead);
  };
  return { ...seal, samples: await samplesOf(read, seal.sizeBytes) };
}

/** Evidence of a foreign write, as a clause about "it"; undefined if there is none. */
export function changeSince(before: CopySeal, now: CopySeal): string | undefined {
  const change = writtenSince(before, now);
  if (change !== undefined || before.samples === now.samples) return change;
  return "its content has changed";
}

/** A short name of it for a mark. */
export function sealName(seal: CopySeal): string {
  return createHash("sha256").update(JSON.stringify(seal)).digest("hex");
}
