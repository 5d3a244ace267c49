/**
 * Changed-block tracking: for each block the number of the last snapshot interval that changed it.
 *
 *     write[b]  live value: the number that was active at the last write, 0 = never in this generation
 *     read[b]   the value that write[b] had at the last take; valid only where write[b] === active
 *
 *     frozen(b) = write[b] === active ? read[b] : write[b]        what a backup reads
 *
 *            take n          write to b            take n+1
 *     active   5    |    6       6           |    7
 *     write    3    |    3  ->   6           |    6
 *     read     -    |    -  ->   3           |   (3, no longer read)
 *     frozen   3    |    3       3           |    6
 *
 * So a take is one store of the active number, not a copy of the map: the first mark of a block in an interval saves
 * its frozen value.
 *
 * Threads. One thread, the owner, marks and switches. Other threads may open the same file in mappings of their own,
 * and read. A mark stores read[b] before write[b], so a reader that sees write[b] === active also sees the saved value
 * (write[b] is stored with Atomics, which neither compiler nor processor moves before read[b]). Marks of an interval
 * follow the store of its number, so a reader that has seen one finds the number changed afterwards and reads again.
 * Only a reset takes more than one store: `sequence` is odd meanwhile, and readers wait for it.
 *
 * Discards. A third table has two bits per block. LIVE: the last change of the block was a discard of the whole block.
 * FROZEN: the value of LIVE at the last take, saved and valid as read[b] is. recordDiscard() sets LIVE last, when the
 * discard has ended, and any mark clears it first; so a kill in between leaves "changed", which is always right. If
 * write[b] is the same before and after a reader looks at LIVE, the two belong together.
 *
 * The file is right after a kill at any instruction: a mark without its second store does not count (its write was not
 * issued either), and open() completes an interrupted reset.
 */
import { assert } from "./assert.js";
import { ACTIVE_MAX, recoveredActive, storeActive } from "./cbt-active.js";
import { CbtCheckpoint } from "./cbt-checkpoint.js";
import {
  CBT_CAPACITY_OFFSET,
  CBT_GENERATION_BYTES,
  CBT_GENERATION_OFFSET,
  CBT_HEADER_BYTES,
  CBT_MAGIC,
  CBT_VERSION,
  CbtDiscard,
  CbtReason,
  CbtWord,
  cbtTableBytes,
  nextGeneration,
} from "./cbt-layout.js";
import { mayRetry } from "./cbt-patience.js";
import { EngineError } from "./errors.js";

export interface CbtOptions {
  /** Size of the device in bytes. */
  capacityBytes: number;
  /** log2 of the block size; see cbtBlockShift. */
  blockShift: number;
  /** 16 random bytes: the id of the generation that begins. */
  generation: Uint8Array;
  /** One of CbtReason; ATTACHED if not given. */
  reason?: number;
}

export interface CbtInfo {
  capacityBytes: number;
  blockBytes: number;
  blockCount: number;
  /** 16 bytes. If it differs from the one that you know, discard what you know, and read everything. */
  generation: Uint8Array;
  /** Why this generation began: one of CbtReason. */
  reason: number;
  /** Number of the last take: blocks whose frozen value is above it changed since. 0 to 254. */
  changesNumber: number;
  /** Marks were lost; the map cannot be read until it is reset. */
  corrupted: boolean;
}

export class CbtMap {
  readonly capacityBytes: number;
  readonly blockShift: number;
  readonly blockCount: number;
  private readonly blockBytesInverse: number;
  private readonly words: Int32Array;
  private readonly write: Uint8Array;
  private readonly read: Uint8Array;
  private readonly discards: Uint8Array;
  private readonly generation: Uint8Array;

  /** Bytes that a map needs for a device of this size. */
  static byteLength(capacityBytes: number, blockShift: number): number {
    return CBT_HEADER_BYTES + 3 * cbtTableBytes(Math.ceil(capacityBytes / 2 ** blockShift));
  }

  /** Makes a new map in `buffer`, which must be all zero. */
  static create(buffer: ArrayBufferLike, options: CbtOptions): CbtMap {
    const { capacityBytes, blockShift, generation } = options;
    if (!Number.isSafeInteger(capacityBytes) || capacityBytes <= 0) {
      throw new EngineError("BAD_GEOMETRY", `CBT: capacity ${capacityBytes} is not a byte count`);
    }
    if (!Number.isInteger(blockShift) || blockShift < 9 || blockShift > 31) {
      throw new EngineError("BAD_GEOMETRY", `CBT: block shift ${blockShift}, use 9 to 31`);
    }
    const need = CbtMap.byteLength(capacityBytes, blockShift);
    if (buffer.byteLength !== need) {
      throw new EngineError("MAP_SIZE", `CBT: buffer of ${buffer.byteLength} bytes, need ${need}`);
    }
    assert(generation.length === CBT_GENERATION_BYTES, "a generation id has 16 bytes");
    const words = new Int32Array(buffer, 0, CBT_HEADER_BYTES / 4);
    words[CbtWord.VERSION] = CBT_VERSION;
    words[CbtWord.BLOCK_SHIFT] = blockShift;
    words[CbtWord.BLOCK_COUNT] = Math.ceil(capacityBytes / 2 ** blockShift);
    storeActive(words, 1);
    words[CbtWord.REASON] = options.reason ?? CbtReason.ATTACHED;
    new Float64Array(buffer, CBT_CAPACITY_OFFSET, 1)[0] = capacityBytes;
    new Uint8Array(buffer, CBT_GENERATION_OFFSET, CBT_GENERATION_BYTES).set(generation);
    // The magic comes last: without it, a file is not a map.
    Atomics.store(words, CbtWord.MAGIC, CBT_MAGIC);
    return new CbtMap(buffer);
  }

  /**
   * Opens a map made by create(), to read it beside its owner or to resume it. Only the owner may pass `owner: true`:
   * it completes a reset or a switch that a crash interrupted, and begins a new generation if the active number is
   * damaged.
   */
  static open(buffer: ArrayBufferLike, options: { owner?: boolean } = {}): CbtMap {
    if (buffer.byteLength < CBT_HEADER_BYTES) {
      throw new EngineError("MAP_FORMAT", "CBT: the file is too short to be a map");
    }
    const words = new Int32Array(buffer, 0, CBT_HEADER_BYTES / 4);
    if (words[CbtWord.MAGIC] !== CBT_MAGIC || words[CbtWord.VERSION] !== CBT_VERSION) {
      throw new EngineError("MAP_FORMAT", "CBT: no map, or one of another version: make a new one");
    }
    const map = new CbtMap(buffer);
    if (options.owner === true) map.takeOver();
    return map;
  }

  private constructor(buffer: ArrayBufferLike) {
    this.words = new Int32Array(buffer, 0, CBT_HEADER_BYTES / 4);
    this.capacityBytes = new Float64Array(buffer, CBT_CAPACITY_OFFSET, 1)[0];
    this.blockShift = this.words[CbtWord.BLOCK_SHIFT];
    this.blockCount = this.words[CbtWord.BLOCK_COUNT];
    this.blockBytesInverse = 1 / 2 ** this.blockShift;
    const shiftFits = this.blockShift >= 9 && this.blockShift <= 31;
    const fits =
      shiftFits && this.blockCount === Math.ceil(this.capacityBytes * this.blockBytesInverse);
    if (!fits || buffer.byteLength !== CbtMap.byteLength(this.capacityBytes, this.blockShift)) {
      throw new EngineError("MAP_GEOMETRY", "CBT: the map's size and its header disagree");
    }
    const table = cbtTableBytes(this.blockCount);
    this.write = new Uint8Array(buffer, CBT_HEADER_BYTES, this.blockCount);
    this.read = new Uint8Array(buffer, CBT_HEADER_BYTES + table, this.blockCount);
    this.discards = new Uint8Array(buffer, CBT_HEADER_BYTES + 2 * table, this.blockCount);
    this.generation = new Uint8Array(buffer, CBT_GENERATION_OFFSET, CBT_GENERATION_BYTES);
  }

  /** Bytes of a checkpoint of a map with so many blocks. */
  static checkpointBytes(blockCount: number): number {
    return CBT_HEADER_BYTES + 2 * blockCount;
  }

  /** All that restore() needs. Discards are not kept: discarded blocks then count as written. */
  checkpoint(): CbtCheckpoint {
    return new CbtCheckpoint(this.words, this.write, this.read);
  }

  /** Bytes that the map of a checkpoint needs. Throws MAP_FORMAT, MAP_GEOMETRY. */
  static restoredBytes(checkpoint: Uint8Array): number {
    if (checkpoint.length < CBT_HEADER_BYTES) {
      throw new EngineError("MAP_FORMAT", "CBT: the checkpoint is too short");
    }
    const header = checkpoint.slice(0, CBT_HEADER_BYTES).buffer;
    const [capacityBytes] = new Float64Array(header, CBT_CAPACITY_OFFSET, 1);
    const blockShift = new Int32Array(header)[CbtWord.BLOCK_SHIFT];
    const blockCount = Math.ceil(capacityBytes / 2 ** blockShift);
    if (checkpoint.length !== CbtMap.checkpointBytes(blockCount)) {
      throw new EngineError("MAP_GEOMETRY", "CBT: the checkpoint's size and its header disagree");
    }
    return CbtMap.byteLength(capacityBytes, blockShift);
  }

  /**
   * Makes a map in `buffer`, which must be all zero, from a checkpoint.
   * Throws MAP_FORMAT, MAP_GEOMETRY, MAP_SIZE: not a checkpoint, or one of another device.
   */
  static restore(buffer: ArrayBufferLike, checkpoint: Uint8Array): CbtMap {
    if (checkpoint.length < CBT_HEADER_BYTES || buffer.byteLength < CBT_HEADER_BYTES) {
      throw new EngineError("MAP_FORMAT", "CBT: the checkpoint is too short");
    }
    new Uint8Array(buffer).set(checkpoint.subarray(0, CBT_HEADER_BYTES));
    const map = CbtMap.open(buffer, { owner: true });
    if (checkpoint.length !== CbtMap.checkpointBytes(map.blockCount)) {
      throw new EngineError("MAP_SIZE", "CBT: the checkpoint's size and its header disagree");
    }
    map.write.set(checkpoint.subarray(CBT_HEADER_BYTES).subarray(0, map.blockCount));
    map.read.set(checkpoint.subarray(CBT_HEADER_BYTES + map.blockCount));
    return map;
  }

  /** Marks the range of request `tag` as changed since the last take. */
  markRequest(offsetBytes: Float64Array, lengthBytes: Float64Array, tag: number): void {
    const first = (offsetBytes[tag] * this.blockBytesInverse) | 0;
    const last = ((offsetBytes[tag] + lengthBytes[tag] - 1) * this.blockBytesInverse) | 0;
    if (first < 0 || last >= this.blockCount) {
      this.words[CbtWord.CORRUPTED] = 1;
      return;
    }
    this.mark(first, last);
  }

  /** False once the memory that it was opened on is unmapped. */
  get isMapped(): boolean {
    return this.words.length > 0;
  }

  /** True if the block is marked as changed since the last take. */
  isMarked(block: number): boolean {
    return this.write[block] === this.words[CbtWord.ACTIVE];
  }

  /**
   * Records that a discard has ended and that its whole blocks hold no data since. Before, markRequest() must have been
   * called for it, and nothing may have written to the range meanwhile.
   */
  recordDiscard(offsetBytes: number, lengthBytes: number): void {
    const endBytes = offsetBytes + lengthBytes;
    const first = Math.ceil(offsetBytes * this.blockBytesInverse);
    const isAtEnd = endBytes === this.capacityBytes;
    const end = isAtEnd ? this.blockCount : Math.floor(endBytes * this.blockBytesInverse);
    const active = this.words[CbtWord.ACTIVE];
    for (let block = first; block < end; block++) {
      if (this.write[block] !== active) continue;
      Atomics.store(this.discards, block, this.discards[block] | CbtDiscard.LIVE);
    }
  }

  /** Marks the range of request `tag` as changed both since the last take and before it. */
  markRequestBoth(offsetBytes: Float64Array, lengthBytes: Float64Array, tag: number): void {
    const first = (offsetBytes[tag] * this.blockBytesInverse) | 0;
    const last = ((offsetBytes[tag] + lengthBytes[tag] - 1) * this.blockBytesInverse) | 0;
    if (first < 0 || last >= this.blockCount) {
      this.words[CbtWord.CORRUPTED] = 1;
      return;
    }
    this.markBoth(first, last);
  }

  /** Marks `count` blocks from `first` on as changed since the last take. Cold. Throws RANGE. */
  markBlocks(first: number, count: number): void {
    this.checkBlocks(first, count);
    this.mark(first, first + count - 1);
  }

  /** As markBlocks, for both since the last take and before it. */
  markBlocksBoth(first: number, count: number): void {
    this.checkBlocks(first, count);
    this.markBoth(first, first + count - 1);
  }

  /** As markRequestBoth, for a range given in bytes. Cold path. Throws RANGE. */
  markRange(offsetBytes: number, lengthBytes: number): void {
    const valid =
      offsetBytes >= 0 && lengthBytes >= 0 && Number.isFinite(offsetBytes + lengthBytes);
    if (!valid || offsetBytes + lengthBytes > this.capacityBytes) {
      const end = offsetBytes + lengthBytes;
      throw new EngineError("RANGE", `cannot mark ${offsetBytes} to ${end}: beyond the device`);
    }
    if (lengthBytes === 0) return;
    const first = Math.floor(offsetBytes * this.blockBytesInverse);
    this.markBoth(first, Math.ceil((offsetBytes + lengthBytes) * this.blockBytesInverse) - 1);
  }

  /**
   * Takes a snapshot: live values become frozen. This is one store, whatever the size of the map, except for the one
   * switch in 255 that runs out of numbers and begins a new generation.
   */
  switch(): void {
    const active = this.words[CbtWord.ACTIVE];
    if (active >= ACTIVE_MAX || this.words[CbtWord.CORRUPTED] !== 0) {
      this.reset(active >= ACTIVE_MAX ? CbtReason.ROLLOVER : CbtReason.CORRUPTED);
      return;
    }
    storeActive(this.words, active + 1);
  }

  /** Forgets all marks and begins a new generation with numbers 1 and 0. */
  reset(reason: number): void {
    if ((this.words[CbtWord.SEQUENCE] & 1) === 0) Atomics.add(this.words, CbtWord.SEQUENCE, 1);
    // The id changes first: an interrupted reset must not leave an old id beside empty maps.
    nextGeneration(this.generation);
    this.words[CbtWord.REASON] = reason;
    storeActive(this.words, 1);
    this.write.fill(0);
    this.read.fill(0);
    this.discards.fill(0);
    this.words[CbtWord.CORRUPTED] = 0;
    Atomics.add(this.words, CbtWord.SEQUENCE, 1);
  }

  /** Records that marks were lost (a write bypassed tracking): the map cannot be read until the next switch resets it. */
  corrupt(): void {
    this.words[CbtWord.CORRUPTED] = 1;
  }

  /**
   * Copies `length` bytes of the frozen map, from block `offset` on, to the start of `into`. If `discarded` is given,
   * its same bytes become 1 for each block whose last change was a discard of the whole block, else 0.
   * Throws CBT_RANGE, CBT_CORRUPTED, or CBT_BUSY: the owner has been resetting the map for a quarter of a second.
   */
  readFrozen(into: Uint8Array, offset: number, length: number, discarded?: Uint8Array): void {
    const inMap = offset >= 0 && length >= 0 && offset + length <= this.blockCount;
    const room = Math.min(into.length, discarded?.length ?? length);
    if (!Number.isInteger(offset) || !Number.isInteger(length) || !inMap || length > room) {
      const end = offset + length;
      throw new EngineError(
        "CBT_RANGE",
        `blocks ${offset} to ${end} of ${this.blockCount} asked for`,
      );
    }
    for (let attempts = 0; mayRetry(attempts); attempts++) {
      const sequence = Atomics.load(this.words, CbtWord.SEQUENCE);
      if ((sequence & 1) !== 0) continue;
      if (this.words[CbtWord.CORRUPTED] !== 0) {
        throw new EngineError("CBT_CORRUPTED", "marks were lost: take a snapshot and back up all");
      }
      const active = Atomics.load(this.words, CbtWord.ACTIVE);
      this.copyFrozen(into, offset, length, active);
      if (discarded !== undefined) this.copyDiscards(discarded, offset, length, active);
      const same = Atomics.load(this.words, CbtWord.ACTIVE) === active;
      if (same && Atomics.load(this.words, CbtWord.SEQUENCE) === sequence) return;
    }
    throw new EngineError("CBT_BUSY", "the CBT map is being reset: try again");
  }

  /** Numbers, size and generation. A copy: it does not follow later changes. Throws CBT_BUSY, as readFrozen(). */
  info(): CbtInfo {
    for (let attempts = 0; mayRetry(attempts); attempts++) {
      const sequence = Atomics.load(this.words, CbtWord.SEQUENCE);
      if ((sequence & 1) !== 0) continue;
      const info = {
        capacityBytes: this.capacityBytes,
        blockBytes: 2 ** this.blockShift,
        blockCount: this.blockCount,
        generation: this.generation.slice(),
        reason: this.words[CbtWord.REASON],
        changesNumber: Atomics.load(this.words, CbtWord.ACTIVE) - 1,
        corrupted: this.words[CbtWord.CORRUPTED] !== 0,
      };
      if (Atomics.load(this.words, CbtWord.SEQUENCE) === sequence) return info;
    }
    throw new EngineError("CBT_BUSY", "the CBT map is being reset: try again");
  }

  /** For the owner: the frozen value of a block, by which a diff knows whether the block has changed. */
  frozenNumber(block: number): number {
    const value = this.write[block];
    return value === this.words[CbtWord.ACTIVE] ? this.read[block] : value;
  }

  /** For the owner: true if no marks were lost, the generation is this one, and its last take has this number. */
  isAt(generation: Uint8Array, changesNumber: number): boolean {
    return this.words[CbtWord.ACTIVE] - 1 === changesNumber && this.isOf(generation);
  }

  /** For the owner: true if no marks were lost, and the generation is this one. */
  isOf(generation: Uint8Array): boolean {
    if (this.words[CbtWord.CORRUPTED] !== 0) return false;
    for (let at = 0; at < CBT_GENERATION_BYTES; at++) {
      if (this.generation[at] !== generation[at]) return false;
    }
    return true;
  }

  private checkBlocks(first: number, count: number): void {
    const whole = Number.isInteger(first) && Number.isInteger(count);
    if (whole && first >= 0 && count >= 1 && first + count <= this.blockCount) return;
    throw new EngineError("RANGE", `blocks ${first} to ${first + count} of ${this.blockCount}`);
  }

  /** Completes what a killed owner left half done. */
  private takeOver(): void {
    const active = recoveredActive(this.words);
    const isReset = (this.words[CbtWord.SEQUENCE] & 1) !== 0;
    if (active === undefined || isReset) this.reset(CbtReason.UNCLEAN);
    else storeActive(this.words, active);
  }

  private mark(first: number, last: number): void {
    const active = this.words[CbtWord.ACTIVE];
    const { write, discards } = this;
    for (let block = first; block <= last; block++) {
      if (write[block] !== active) this.touch(block, write[block], active);
      else if (discards[block] !== 0) discards[block] &= CbtDiscard.FROZEN;
    }
  }

  private touch(block: number, frozen: number, active: number): void {
    const { discards } = this;
    if (discards[block] !== 0) discards[block] = (discards[block] & CbtDiscard.LIVE) << 1;
    this.read[block] = frozen;
    Atomics.store(this.write, block, active);
  }

  private markBoth(first: number, last: number): void {
    assert(first >= 0 && last < this.blockCount, "CBT mark beyond the map");
    const active = this.words[CbtWord.ACTIVE];
    for (let block = first; block <= last; block++) {
      this.discards[block] = 0;
      // A frozen value is never above the previous number, so "at least previous" is previous.
      if (this.write[block] !== active) this.touch(block, active - 1, active);
      else this.read[block] = active - 1;
    }
  }

  private copyFrozen(into: Uint8Array, offset: number, length: number, active: number): void {
    for (let index = 0; index < length; index++) {
      const value = Atomics.load(this.write, offset + index);
      into[index] = value === active ? this.read[offset + index] : value;
    }
  }

  private copyDiscards(into: Uint8Array, offset: number, length: number, active: number): void {
    for (let index = 0; index < length; index++) {
      const block = offset + index;
      const before = Atomics.load(this.write, block);
      const bits = Atomics.load(this.discards, block);
      const value = Atomics.load(this.write, block);
      // Marked between the two loads: FROZEN is stored by now, but `bits` may be older.
      const stable = value === before ? bits : Atomics.load(this.discards, block);
      const bit = value === active ? CbtDiscard.FROZEN : CbtDiscard.LIVE;
      into[index] = (stable & bit) !== 0 ? 1 : 0;
    }
  }
}
