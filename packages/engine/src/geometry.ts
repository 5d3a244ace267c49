/**
 * How a device is divided into chunks and blocks.
 *
 *     device   |--------- chunk 0 ---------|--------- chunk 1 ---------|-- last, short --|
 *     chunk    | block 0 | block 1 | ...   |                           | ...     |short|
 *
 * A chunk is what gets a slot in the diff storage, a block is what gets copied. Both are powers of
 * two. The last chunk and the last block may be short; a short chunk still takes a whole slot.
 *
 * Positions are (chunk number, block in chunk, byte in chunk): small integers that can be passed between functions
 * without becoming heap numbers, as byte offsets above 2^31 would.
 */
import { SECTOR_BYTES } from "./constants.js";
import { EngineError } from "./errors.js";

const CHUNK_SHIFT_MAX = 26;
export const BLOCK_SHIFT_DEFAULT = 12;
const BLOCK_SHIFT_MIN = 9;
export const BLOCK_SHIFT_MAX = 16;
const CHUNK_COUNT_MAX = 2 ** 30;

export interface TrackerGeometry {
  /** Size of the device, a multiple of `logicalBlockBytes`. */
  capacityBytes: number;
  /** Logical block size of the device: a power of two from 512 to 65536. */
  logicalBlockBytes: number;
  /** log2 of the chunk size, up to 26; usually 18 (256 KiB). */
  chunkShift: number;
  /**
   * log2 of the block size, 9 to 16: 12, or log2 of the logical block size if that is larger; more for devices whose
   * map would otherwise be too large (DiffAreaMap.fits).
   */
  blockShift: number;
}

function bad(message: string): never {
  throw new EngineError("BAD_GEOMETRY", message);
}

function check(from: TrackerGeometry): void {
  const { capacityBytes, logicalBlockBytes, chunkShift, blockShift } = from;
  if (!Number.isSafeInteger(capacityBytes) || capacityBytes <= 0) {
    bad(`capacity ${capacityBytes} is not a positive number of bytes`);
  }
  const log = Math.log2(logicalBlockBytes);
  if (!Number.isInteger(log) || logicalBlockBytes < SECTOR_BYTES || log > BLOCK_SHIFT_MAX) {
    bad(`logical block size ${logicalBlockBytes}: use a power of two from 512 to 65536`);
  }
  if (capacityBytes % logicalBlockBytes !== 0) {
    bad(`capacity ${capacityBytes} is not a multiple of the logical block ${logicalBlockBytes}`);
  }
  if (
    !Number.isInteger(blockShift) ||
    blockShift < BLOCK_SHIFT_MIN ||
    blockShift > BLOCK_SHIFT_MAX
  ) {
    bad(`block shift ${blockShift}: use ${BLOCK_SHIFT_MIN} to ${BLOCK_SHIFT_MAX}`);
  }
  if (blockShift < log) bad(`block shift ${blockShift} is below the logical block size`);
  if (!Number.isInteger(chunkShift) || chunkShift < blockShift || chunkShift > CHUNK_SHIFT_MAX) {
    bad(`chunk shift ${chunkShift}: use ${blockShift} (the block shift) to ${CHUNK_SHIFT_MAX}`);
  }
  if (Math.ceil(capacityBytes / 2 ** chunkShift) > CHUNK_COUNT_MAX) {
    bad(`capacity ${capacityBytes} has too many chunks of 2^${chunkShift} bytes: use larger ones`);
  }
}

/** A checked TrackerGeometry with everything that follows from it. */
export class Geometry implements TrackerGeometry {
  readonly capacityBytes: number;
  readonly logicalBlockBytes: number;
  readonly chunkShift: number;
  readonly blockShift: number;
  readonly chunkBytes: number;
  /** 1 / chunkBytes: a power of two, so multiplying with it is exact. */
  readonly chunkBytesInverse: number;
  readonly blockBytes: number;
  readonly blocksPerChunk: number;
  /** 32-bit words that hold one bit for each block of a chunk. */
  readonly wordsPerChunk: number;
  readonly chunkCount: number;
  readonly lastChunkBytes: number;

  constructor(from: TrackerGeometry) {
    check(from);
    this.capacityBytes = from.capacityBytes;
    this.logicalBlockBytes = from.logicalBlockBytes;
    this.chunkShift = from.chunkShift;
    this.blockShift = from.blockShift;
    this.chunkBytes = 1 << from.chunkShift;
    this.chunkBytesInverse = 1 / this.chunkBytes;
    this.blockBytes = 1 << from.blockShift;
    this.blocksPerChunk = 1 << (from.chunkShift - from.blockShift);
    this.wordsPerChunk = (this.blocksPerChunk + 31) >> 5;
    this.chunkCount = Math.ceil(from.capacityBytes / this.chunkBytes);
    this.lastChunkBytes = from.capacityBytes - (this.chunkCount - 1) * this.chunkBytes;
  }

  /** Bytes of the device in this chunk: a whole chunk, or less at the end of the device. */
  bytesInChunk(chunk: number): number {
    return chunk === this.chunkCount - 1 ? this.lastChunkBytes : this.chunkBytes;
  }

  /** Blocks of the device in this chunk, a short last one included. */
  blocksInChunk(chunk: number): number {
    return (this.bytesInChunk(chunk) + this.blockBytes - 1) >> this.blockShift;
  }

  /** Where block `block` of the chunk ends, in bytes from the chunk's start; cut at the device's end. */
  blockEndInChunk(chunk: number, block: number): number {
    const end = (block + 1) << this.blockShift;
    const bytes = this.bytesInChunk(chunk);
    return Math.min(end, bytes);
  }

  /** True if `other` describes a device of the same size with the same chunks and blocks. */
  equals(other: TrackerGeometry): boolean {
    return (
      this.capacityBytes === other.capacityBytes &&
      this.logicalBlockBytes === other.logicalBlockBytes &&
      this.chunkShift === other.chunkShift &&
      this.blockShift === other.blockShift
    );
  }
}
