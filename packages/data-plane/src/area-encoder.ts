/**
 * Writes the whole map of a diff area as entries of its journal, in bounded steps: while a reactor continues to
 * change the map, or all at once before that.
 *
 * Each entry is true of the map at the time of its step. So a log with all earlier changes may lack any of them, as it
 * may lack the last ones after a power cut; and in an empty log the entries of the steps and of the changes in between,
 * in this order, give the same map.
 *
 * A chunk costs one entry for each run of whole words of 32 equal blocks, and never more than two for each word: those
 * have one bit per block.
 */
import { type DiffAreaMap, NO_SLOT } from "@blksnap/engine";
import { type AppendEntry, AreaOp, blockRange, maskOp } from "./journal-entries.js";

/** Entries that a step may append besides those that it counts. */
const SPARE_ENTRIES = 3;

export class AreaEncoder {
  readonly #map: DiffAreaMap;
  /** Where the next step begins: a chunk, and a block of it. */
  #chunk = 0;
  #block = 0;
  /** State of a partly encoded chunk, which restarts if that has changed. */
  #slot = NO_SLOT;
  #wasReleased = false;
  /** Start of the current row of chunks that were released as a whole. */
  #releasedFrom = 0;
  #releasedCount = 0;
  #entriesLeft = 0;
  #append: AppendEntry = () => undefined;

  constructor(map: DiffAreaMap) {
    this.#map = map;
  }

  get isDone(): boolean {
    return this.#chunk >= this.#map.geometry.chunkCount;
  }

  /**
   * Appends the entries of the next part of the map.
   * @param entriesMax how many entries it may append; at least 4
   * @param unitsMax about how many chunks, and words of bitmaps, it may examine
   */
  step(entriesMax: number, unitsMax: number, append: AppendEntry): void {
    this.#append = append;
    this.#entriesLeft = entriesMax - SPARE_ENTRIES;
    const { wordsPerChunk } = this.#map.geometry;
    let units = unitsMax;
    this.#chunk = this.#map.visitTouched(this.#chunk, unitsMax, (chunk) => {
      if (units <= 0 || this.#entriesLeft <= 0) return false;
      units -= wordsPerChunk;
      return this.#encode(chunk);
    });
    this.#flushReleased();
  }

  /** Returns false if the chunk is not complete yet. */
  #encode(chunk: number): boolean {
    const map = this.#map;
    const slot = map.slotOf(chunk);
    const isReleased = map.isReleased(chunk);
    if (isReleased && slot === NO_SLOT) {
      this.#released(chunk);
      this.#block = 0;
      return true;
    }
    if (this.#slot !== slot || this.#wasReleased !== isReleased) this.#block = 0;
    this.#slot = slot;
    this.#wasReleased = isReleased;
    const blocks = map.geometry.blocksInChunk(chunk);
    while (this.#block < blocks) {
      if (this.#entriesLeft <= 0) return false;
      this.#block = this.#encodeBlocks(chunk, slot, this.#block, blocks);
    }
    this.#block = 0;
    return true;
  }

  /** Encodes a run, or what precedes the next multiple of 32 blocks. Returns where that ends. */
  #encodeBlocks(chunk: number, slot: number, from: number, blocks: number): number {
    const map = this.#map;
    const word = from >> 5;
    const wordEnd = Math.min((from | 31) + 1, blocks);
    const asked = bitsOf(from, wordEnd);
    const data = map.dataBits(chunk, word) & asked;
    const holes = map.holeBits(chunk, word) & asked;
    // All blocks belong to one run, which may continue after the word.
    if (data === asked) return this.#run(AreaOp.SAVED, chunk, slot, from, blocks);
    const holeOp = this.#wasReleased ? AreaOp.ZERO : AreaOp.LOST;
    if (holes === asked) return this.#run(holeOp, chunk, 0, from, blocks);
    const holeMaskOp = this.#wasReleased ? AreaOp.ZERO_MASK : AreaOp.LOST_MASK;
    if (holes !== 0) this.#entry(maskOp(holeMaskOp, word), chunk, 0, holes);
    if (data !== 0) this.#entry(maskOp(AreaOp.SAVED_MASK, word), chunk, slot, data);
    return wordEnd;
  }

  #run(op: number, chunk: number, slot: number, from: number, blocks: number): number {
    const end = this.#map.stateEnd(chunk, from, blocks);
    this.#entry(op, chunk, slot, blockRange(from, end));
    return end;
  }

  #released(chunk: number): void {
    if (this.#releasedCount > 0 && this.#releasedFrom + this.#releasedCount === chunk) {
      this.#releasedCount++;
      return;
    }
    this.#flushReleased();
    this.#releasedFrom = chunk;
    this.#releasedCount = 1;
  }

  #flushReleased(): void {
    if (this.#releasedCount === 0) return;
    this.#entry(AreaOp.RELEASED, this.#releasedFrom, this.#releasedCount, 0);
    this.#releasedCount = 0;
  }

  #entry(op: number, a: number, b: number, c: number): void {
    this.#entriesLeft--;
    this.#append(op, a, b, c);
  }
}

/** Bits of the blocks [from, to) within their word of 32. */
function bitsOf(from: number, to: number): number {
  const count = to - from;
  return count === 32 ? -1 : ((1 << count) - 1) << (from & 31);
}
