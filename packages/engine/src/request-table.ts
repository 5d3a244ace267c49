/**
 * The requests of one ublk queue, as columns indexed by tag.
 *
 *     tag           0    1    2   ...  depth-1
 *     op           [ ]  [ ]  [ ]                  the host writes these four,
 *     flags        [ ]  [ ]  [ ]                  then calls submitFront or submitImage
 *     offsetBytes  [ ]  [ ]  [ ]
 *     lengthBytes  [ ]  [ ]  [ ]
 *     -----------------------------------------
 *     begin, end, cursor, pending ...             the engine's own: the request's range and its
 *                                                 progress
 *
 * A request covers [begin, end). Everything before the cursor is done or on its way; `pending` counts
 * what is on its way. When it falls to zero the request continues from the cursor.
 */
import { assert } from "./assert.js";
import { SECTOR_BYTES } from "./constants.js";
import type { Geometry } from "./geometry.js";

/** Where a request is. A request is on at most one queue at any time. */
export const RequestState = {
  /** Not in use by the engine: free, or held by the host. */
  IDLE: 0,
  /** Working, or waiting for its own copies and runs. */
  ACTIVE: 1,
  /** On the queue of a copy, of a pool, or of held requests. */
  PARKED: 2,
  /** Issued to the original; one of its copies may still be in flight. */
  ISSUED: 3,
} as const;

export class RequestTable {
  readonly depth: number;
  readonly op: Uint8Array;
  /** The engine reads the flags of RequestFlag; the host may use all others. */
  readonly flags: Uint32Array;
  readonly offsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;

  readonly state: Uint8Array;
  readonly beginChunk: Int32Array;
  readonly beginInChunkBytes: Int32Array;
  readonly endChunk: Int32Array;
  /** Exclusive, in bytes from the start of `endChunk`. */
  readonly endInChunkBytes: Int32Array;
  /** Exclusive, in blocks from the start of `endChunk`. */
  readonly endBlock: Int32Array;
  readonly cursorChunk: Int32Array;
  readonly cursorBlock: Int32Array;
  readonly pending: Int32Array;
  /** Image: where to read again from when the request's runs have ended; chunk -1: nowhere. */
  private readonly againChunk: Int32Array;
  private readonly againBlock: Int32Array;
  /** 0 or a negative errno: what the request will end with. */
  readonly error: Int32Array;
  /** Front: the original has answered, with `answer`, before the copy behind it has ended. */
  readonly isAnswered: Uint8Array;
  readonly answer: Int32Array;
  readonly windowUsedBlocks: Int32Array;
  /** Front: how many blocks may be copied ahead of the request, which continues a sequence. */
  readonly aheadBlocks: Int32Array;
  /** Front: the tick at which the request first waited for room; 0 if it never did. */
  readonly blockedSince: Int32Array;
  /** A run kept while its request waits for a copy; -1 if none. */
  readonly reservedRun: Int32Array;

  constructor(depth: number) {
    assert(Number.isInteger(depth) && depth > 0, "queue depth must be at least 1");
    this.depth = depth;
    this.op = new Uint8Array(depth);
    this.flags = new Uint32Array(depth);
    this.offsetBytes = new Float64Array(depth);
    this.lengthBytes = new Float64Array(depth);
    this.state = new Uint8Array(depth);
    this.beginChunk = new Int32Array(depth);
    this.beginInChunkBytes = new Int32Array(depth);
    this.endChunk = new Int32Array(depth);
    this.endInChunkBytes = new Int32Array(depth);
    this.endBlock = new Int32Array(depth);
    this.cursorChunk = new Int32Array(depth);
    this.cursorBlock = new Int32Array(depth);
    this.pending = new Int32Array(depth);
    this.againChunk = new Int32Array(depth).fill(-1);
    this.againBlock = new Int32Array(depth);
    this.error = new Int32Array(depth);
    this.isAnswered = new Uint8Array(depth);
    this.answer = new Int32Array(depth);
    this.windowUsedBlocks = new Int32Array(depth);
    this.aheadBlocks = new Int32Array(depth);
    this.blockedSince = new Int32Array(depth);
    this.reservedRun = new Int32Array(depth).fill(-1);
  }

  /** True if the request lies within the device, is aligned to sectors and not empty. */
  isValid(tag: number, geometry: Geometry): boolean {
    const offset = this.offsetBytes[tag];
    const length = this.lengthBytes[tag];
    // The remainder of doubles is a library call; rounding is one instruction.
    const firstSector = offset * (1 / SECTOR_BYTES);
    const sectors = length * (1 / SECTOR_BYTES);
    return (
      offset >= 0 &&
      length > 0 &&
      offset + length <= geometry.capacityBytes &&
      firstSector === Math.floor(firstSector) &&
      sectors === Math.floor(sectors)
    );
  }

  /** Fills begin, end and cursor from offset and length. The request must be valid. */
  locate(tag: number, geometry: Geometry): void {
    const offset = this.offsetBytes[tag];
    const end = offset + this.lengthBytes[tag];
    const beginChunk = (offset * geometry.chunkBytesInverse) | 0;
    const endChunk = ((end - 1) * geometry.chunkBytesInverse) | 0;
    const beginInChunk = (offset - beginChunk * geometry.chunkBytes) | 0;
    const endInChunk = (end - endChunk * geometry.chunkBytes) | 0;
    this.beginChunk[tag] = beginChunk;
    this.beginInChunkBytes[tag] = beginInChunk;
    this.endChunk[tag] = endChunk;
    this.endInChunkBytes[tag] = endInChunk;
    this.endBlock[tag] = (endInChunk + geometry.blockBytes - 1) >> geometry.blockShift;
    this.pending[tag] = 0;
    this.windowUsedBlocks[tag] = 0;
    this.blockedSince[tag] = 0;
    this.againChunk[tag] = -1;
    this.rewind(tag, geometry);
  }

  /** The request is to be read again from this block on, or from an earlier one noted before. */
  goBack(tag: number, chunk: number, block: number): void {
    const before = this.againChunk[tag];
    if (before >= 0 && (before < chunk || (before === chunk && this.againBlock[tag] <= block)))
      return;
    this.againChunk[tag] = chunk;
    this.againBlock[tag] = block;
  }

  /** Moves the cursor back to that block, with nothing in flight. */
  moveBack(tag: number): void {
    if (this.againChunk[tag] < 0) return;
    this.cursorChunk[tag] = this.againChunk[tag];
    this.cursorBlock[tag] = this.againBlock[tag];
    this.againChunk[tag] = -1;
  }

  /** Moves back to the beginning of a request that was located and has nothing in flight. */
  rewind(tag: number, geometry: Geometry): void {
    this.cursorChunk[tag] = this.beginChunk[tag];
    this.cursorBlock[tag] = this.beginInChunkBytes[tag] >> geometry.blockShift;
    this.error[tag] = 0;
  }
}
