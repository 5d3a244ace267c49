/**
 * `base:allocation` of fronts and images, from the holes that the original had when it was queried:
 *
 * ```
 *   take ──▶ the original is queried ──▶ the request
 *                     │                     │
 *                  a hole      no write since, according to the map of writes
 *                     └──────────┬──────────┘
 *                       it reads as zero: a hole
 * ```
 *
 * For an image, the diff area says it: blocks that are not saved there were not written since the take. For a front,
 * the CBT map says it: blocks written since have the number of that time, or a later one. Everything else counts as
 * data.
 */
import { BlockState, type CbtMap, type DiffAreaMap } from "@blksnap/engine";
import { AllocationFlag, allData, BASE_ALLOCATION, type MetaContext } from "@blksnap/nbd";
import { REACTOR_TURN_UNITS } from "./turns.js";

const EMPTY: number = AllocationFlag.HOLE | AllocationFlag.ZERO;

/** Holes of an original, as a query found them. */
export interface KnownHoles {
  /** Start and end of each, ascending: two numbers for each. */
  readonly ends: Float64Array;
  /** The CBT map's generation before the query. */
  readonly generation: Uint8Array;
  /** The number that the map gave to writes at that time. */
  readonly number: number;
}

class Holes {
  readonly #ends: Float64Array;
  /** Whether the part that the last endOf() found is a hole. */
  isHole = false;

  constructor(ends: Float64Array) {
    this.#ends = ends;
  }

  /** @returns the end of the hole, or of the data, that the byte lies in */
  endOf(offsetBytes: number): number {
    const ends = this.#ends;
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ends[middle] <= offsetBytes) low = middle + 1;
      else high = middle;
    }
    this.isHole = low % 2 === 1;
    return low < ends.length ? ends[low] : Number.POSITIVE_INFINITY;
  }
}

/** Everything outside the original's holes is data; inside them, block by block, what was written since. */
abstract class AllocationContext implements MetaContext {
  readonly name: string = BASE_ALLOCATION;
  readonly reachBytes: number;
  flags = 0;
  /** The blocks that sameUntil() has checked were not written since. */
  protected isAsItWas = false;
  readonly #holes: Holes;
  readonly #blockBytes: number;

  /** @param reachBlocks the most blocks to examine in one turn */
  protected constructor(holes: KnownHoles, blockBytes: number, reachBlocks: number) {
    this.#holes = new Holes(holes.ends);
    this.#blockBytes = blockBytes;
    this.reachBytes = reachBlocks * blockBytes;
  }

  /** Whether the holes still say anything. */
  protected abstract isKnown(): boolean;

  /** End of a run of blocks from `block` on of which all or none were written to; at most `end`. */
  protected abstract sameUntil(block: number, end: number): number;

  runBytes(offsetBytes: number, endBytes: number): number {
    this.flags = 0;
    if (!this.isKnown()) return endBytes - offsetBytes;
    const endOfRun = Math.min(this.#holes.endOf(offsetBytes), endBytes);
    if (!this.#holes.isHole) return endOfRun - offsetBytes;
    const blockBytes = this.#blockBytes;
    const first = Math.floor(offsetBytes / blockBytes);
    const block = this.sameUntil(first, Math.ceil(endOfRun / blockBytes));
    if (this.isAsItWas) this.flags = EMPTY;
    return Math.min(block * blockBytes, endOfRun) - offsetBytes;
  }
}

class FrontAllocation extends AllocationContext {
  readonly #cbt: CbtMap;
  readonly #known: KnownHoles;

  constructor(cbt: CbtMap, known: KnownHoles) {
    super(known, 2 ** cbt.blockShift, REACTOR_TURN_UNITS);
    this.#cbt = cbt;
    this.#known = known;
  }

  protected isKnown(): boolean {
    return this.#cbt.isOf(this.#known.generation);
  }

  protected sameUntil(first: number, end: number): number {
    this.isAsItWas = this.#isBefore(first);
    let block = first + 1;
    while (block < end && this.#isBefore(block) === this.isAsItWas) block++;
    return block;
  }

  #isBefore(block: number): boolean {
    const cbt = this.#cbt;
    return !cbt.isMarked(block) && cbt.frozenNumber(block) < this.#known.number;
  }
}

class ImageAllocation extends AllocationContext {
  readonly #map: DiffAreaMap;
  readonly #isReadable: () => boolean;

  constructor(map: DiffAreaMap, known: KnownHoles, isReadable: () => boolean) {
    const { blocksPerChunk, blockBytes } = map.geometry;
    super(known, blockBytes, REACTOR_TURN_UNITS * blocksPerChunk);
    this.#map = map;
    this.#isReadable = isReadable;
  }

  protected isKnown(): boolean {
    return this.#isReadable();
  }

  protected sameUntil(first: number, end: number): number {
    const map = this.#map;
    const { blocksPerChunk } = map.geometry;
    let block = first;
    let chunk = Math.floor(block / blocksPerChunk);
    for (let isFirst = true; block < end; isFirst = false, chunk++) {
      const base = chunk * blocksPerChunk;
      const inChunk = block - base;
      const isUnsaved = map.stateAt(chunk, inChunk) === BlockState.UNSAVED;
      if (isFirst) this.isAsItWas = isUnsaved;
      else if (isUnsaved !== this.isAsItWas) break;
      const to = Math.min(blocksPerChunk, end - base);
      block = base + map.stateEnd(chunk, inChunk, to);
      if (block < base + to) break;
    }
    return block;
  }
}

/** @param holes of the original; null if they are unknown */
export function frontAllocation(cbt: CbtMap, holes: KnownHoles | null): MetaContext {
  return holes === null ? allData() : new FrontAllocation(cbt, holes);
}

/**
 * @param holes that the original had at some time after the take
 * @param isReadable whether the image can still be read
 */
export function imageAllocation(
  map: DiffAreaMap,
  holes: KnownHoles | null,
  isReadable: () => boolean,
): MetaContext {
  return holes === null ? allData() : new ImageAllocation(map, holes, isReadable);
}
