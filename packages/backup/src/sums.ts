/**
 * A checksum for each block of a copy, computed from what an export has written: `verify` compares them with the
 * present content. An incremental export keeps those of the blocks that it does not write.
 *
 * CRC-32 finds each flipped byte, keeps up with disks, and the sums of a whole device fit into its record; it is no
 * protection against an attacker.
 */
import { endianness } from "node:os";
import { crc32 } from "node:zlib";
import type { ByteRange } from "@blksnap/api";
import { CHUNK_BYTES } from "./chunks.js";

const BLOCK_MIN_BYTES = 65_536;
/** Like change tracking with blocks of this size: changes are always whole blocks. */
const BLOCKS_WANTED = 2 ** 21;

/** As they are in a record. */
export interface RecordedSums {
  readonly block_bytes: number;
  /** CRC-32 (of zlib) of each block, little-endian, in base64. The last block ends where the device does. */
  readonly crc32: string;
  /** A bit for each block with an unknown sum, from the lowest one on, in base64; null: all are known. */
  readonly unknown: string | null;
  /** CRC-32 of both byte strings in sequence, to detect damage of the sums themselves. */
  readonly own_crc32: number;
}

/** The whole blocks within a part of a device. */
export interface BlockWindow {
  /** In the part. */
  readonly startBytes: number;
  readonly endBytes: number;
  readonly blockBytes: number;
}

/** A window without wanted sums. */
export const NO_BLOCKS: BlockWindow = { startBytes: 0, endBytes: 0, blockBytes: BLOCK_MIN_BYTES };

/** Between 64 KiB and a chunk. */
function blockBytesFor(capacityBytes: number): number {
  let bytes = BLOCK_MIN_BYTES;
  while (bytes < CHUNK_BYTES && capacityBytes / bytes > BLOCKS_WANTED) bytes *= 2;
  return bytes;
}

function windowIn(capacityBytes: number, offsetBytes: number, lengthBytes: number): BlockWindow {
  const blockBytes = blockBytesFor(capacityBytes);
  const end = offsetBytes + lengthBytes;
  const isLast = end >= capacityBytes;
  const from = Math.ceil(offsetBytes / blockBytes) * blockBytes;
  const to = isLast ? end : Math.floor(end / blockBytes) * blockBytes;
  const startBytes = Math.min(from - offsetBytes, lengthBytes);
  return { startBytes, endBytes: Math.max(startBytes, to - offsetBytes), blockBytes };
}

/** The whole blocks of ranges. @param ranges in order @param capacityBytes of the device */
export function wholeBlocks(ranges: readonly ByteRange[], capacityBytes: number): ByteRange[] {
  return ranges.flatMap(({ offset_bytes, length_bytes }) => {
    const { startBytes, endBytes } = windowIn(capacityBytes, offset_bytes, length_bytes);
    const blocks = {
      offset_bytes: offset_bytes + startBytes,
      length_bytes: endBytes - startBytes,
    };
    return blocks.length_bytes === 0 ? [] : [blocks];
  });
}

/** Converts sums between memory and record; they differ only on few machines. */
function littleEndian(sums: Buffer): Buffer {
  return endianness() === "LE" ? sums : Buffer.from(sums).swap32();
}

function ownSum(sums: Uint8Array, bits: Uint8Array | undefined): number {
  return bits === undefined ? crc32(sums) : crc32(bits, crc32(sums));
}

export function isZero(data: Uint8Array): boolean {
  return data[0] === 0 && Buffer.compare(data.subarray(1), data.subarray(0, -1)) === 0;
}

/** Sums of the blocks in the window, in order; the last may be shorter. Null if all of `data` is zeros. */
export function sumsOf(
  data: Uint8Array,
  { startBytes, endBytes, blockBytes }: BlockWindow,
): Uint32Array | null {
  if (isZero(data)) return null;
  const sums = new Uint32Array(Math.max(0, Math.ceil((endBytes - startBytes) / blockBytes)));
  for (let index = 0; index < sums.length; index++) {
    const from = startBytes + index * blockBytes;
    sums[index] = crc32(data.subarray(from, Math.min(from + blockBytes, endBytes)));
  }
  return sums;
}

/** The initial sums of a copy. @param base that it updates; undefined: it is created */
export function sumsOnto(
  base: { readonly sums?: RecordedSums | undefined } | undefined,
  capacityBytes: number,
): Sums | undefined {
  return base === undefined ? new Sums(capacityBytes) : Sums.parse(base.sums, capacityBytes);
}

export class Sums {
  readonly #capacityBytes: number;
  readonly #blockBytes: number;
  readonly #sums: Uint32Array;
  readonly #unknown: Uint8Array;
  readonly #zeroSum: number;
  readonly #lastZeroSum: number;

  /** Sums of a zeroed device. */
  constructor(capacityBytes: number) {
    const blockBytes = blockBytesFor(capacityBytes);
    this.#capacityBytes = capacityBytes;
    this.#blockBytes = blockBytes;
    const count = Math.ceil(capacityBytes / blockBytes);
    this.#unknown = new Uint8Array(Math.ceil(count / 8));
    this.#zeroSum = crc32(new Uint8Array(blockBytes));
    this.#lastZeroSum = crc32(new Uint8Array(capacityBytes - (count - 1) * blockBytes));
    this.#sums = new Uint32Array(count).fill(this.#zeroSum);
    this.#sums[count - 1] = this.#lastZeroSum;
  }

  /** Undefined if there are none, or they are damaged or for another size. */
  static parse(recorded: RecordedSums | undefined, capacityBytes: number): Sums | undefined {
    if (recorded === undefined) return undefined;
    const { block_bytes: blockBytes, crc32: text, unknown, own_crc32 } = recorded;
    if (blockBytes !== blockBytesFor(capacityBytes)) return undefined;
    const sums = new Sums(capacityBytes);
    const found = Buffer.from(String(text), "base64");
    const bits = unknown === null ? undefined : Buffer.from(String(unknown), "base64");
    if (found.length !== sums.#sums.length * 4) return undefined;
    if ((bits ?? sums.#unknown).length !== sums.#unknown.length) return undefined;
    if (ownSum(found, bits) !== own_crc32) return undefined;
    littleEndian(found).copy(Buffer.from(sums.#sums.buffer));
    if (bits !== undefined) sums.#unknown.set(bits);
    return sums;
  }

  record(): RecordedSums {
    const text = littleEndian(Buffer.from(this.#sums.buffer));
    const isAllKnown = this.#unknown.every((byte) => byte === 0);
    const bits = isAllKnown ? undefined : Buffer.from(this.#unknown);
    return {
      block_bytes: this.#blockBytes,
      crc32: text.toString("base64"),
      unknown: bits?.toString("base64") ?? null,
      own_crc32: ownSum(text, bits),
    };
  }

  windowOf(offsetBytes: number, lengthBytes: number): BlockWindow {
    return windowIn(this.#capacityBytes, offsetBytes, lengthBytes);
  }

  /**
   * Adds a written part of the device; blocks that are only partly in it lose their sum.
   * @param sums of the blocks in its window; null if it is zeros
   */
  put(offsetBytes: number, lengthBytes: number, sums: Uint32Array | null): void {
    const blockBytes = this.#blockBytes;
    const { startBytes, endBytes } = this.windowOf(offsetBytes, lengthBytes);
    const first = (offsetBytes + startBytes) / blockBytes;
    const count = Math.max(0, Math.ceil((endBytes - startBytes) / blockBytes));
    const touched = Math.floor(offsetBytes / blockBytes);
    const end = Math.ceil((offsetBytes + lengthBytes) / blockBytes);
    for (let index = touched; index < end; index++) {
      const isWhole = index >= first && index < first + count;
      this.#mark(index, !isWhole);
      if (isWhole) this.#sums[index] = sums === null ? this.#zeroOf(index) : sums[index - first]!;
    }
  }

  /**
   * Blocks of a part with other content, in order, with adjacent ones merged.
   * @param sums as in put()
   */
  differences(offsetBytes: number, lengthBytes: number, sums: Uint32Array | null): ByteRange[] {
    const blockBytes = this.#blockBytes;
    const { startBytes } = this.windowOf(offsetBytes, lengthBytes);
    const first = (offsetBytes + startBytes) / blockBytes;
    const count = sums?.length ?? Math.ceil((lengthBytes - startBytes) / blockBytes);
    const found: { offset_bytes: number; length_bytes: number }[] = [];
    for (let index = first; index < first + count; index++) {
      const sum = sums === null ? this.#zeroOf(index) : sums[index - first];
      if (this.#isUnknown(index) || this.#sums[index] === sum) continue;
      const offset_bytes = index * blockBytes;
      const length_bytes = Math.min(blockBytes, this.#capacityBytes - offset_bytes);
      const last = found.at(-1);
      if (last !== undefined && last.offset_bytes + last.length_bytes === offset_bytes) {
        last.length_bytes += length_bytes;
      } else found.push({ offset_bytes, length_bytes });
    }
    return found;
  }

  /** Makes all sums unknown. */
  forget(): void {
    this.#unknown.fill(0xff);
  }

  /** Blocks that cannot be checked. */
  get unknownBytes(): number {
    let bytes = 0;
    for (let index = 0; index < this.#sums.length; index++) {
      if (this.#isUnknown(index)) {
        bytes += Math.min(this.#blockBytes, this.#capacityBytes - index * this.#blockBytes);
      }
    }
    return bytes;
  }

  #zeroOf(index: number): number {
    return index === this.#sums.length - 1 ? this.#lastZeroSum : this.#zeroSum;
  }

  #isUnknown(index: number): boolean {
    return (this.#unknown[index >> 3]! & (1 << (index & 7))) !== 0;
  }

  #mark(index: number, isUnknown: boolean): void {
    const bit = 1 << (index & 7);
    if (isUnknown) this.#unknown[index >> 3]! |= bit;
    else this.#unknown[index >> 3]! &= ~bit;
  }
}
