/**
 * Discards of the original that are kept back: a bit per granule that its users have discarded and
 * that has not been written since.
 *
 *     granule   a block; more of them on large devices, so that the bits never take more than 64 MiB
 *     page      2^18 granules; an empty one takes no memory; full ones share one array
 *
 *     pages     [ none | bits | all | none | ... ]      2048 of them at most
 *
 * A discard sets the granules that it covers completely; anything that overlaps a granule in part clears it. So a set
 * bit may be missing, but no bit is ever set for data that a user wants back.
 */
import { bitAt, clearBits, findBit, setBits } from "./bits.js";
import type { Geometry } from "./geometry.js";

const PAGE_SHIFT = 18;
const PAGE_GRANULES = 2 ** PAGE_SHIFT;
const PAGE_WORDS = PAGE_GRANULES / 32;
const GRANULES_MAX = 2 ** 29;

/** Shared by all pages whose granules are all kept; never changed. */
const ALL: Int32Array = new Int32Array(PAGE_WORDS).fill(-1);

export class KeptDiscards {
  readonly granuleBytes: number;
  readonly granuleCount: number;
  /** Granules that are kept. */
  count: number = 0;
  private readonly capacityBytes: number;
  private readonly granuleBytesInverse: number;
  private readonly pages: (Int32Array | null)[];
  private readonly pageCounts: Int32Array;

  constructor(geometry: Geometry, granulesMax: number = GRANULES_MAX) {
    let { blockBytes } = geometry;
    while (geometry.capacityBytes / blockBytes > granulesMax) blockBytes *= 2;
    this.granuleBytes = blockBytes;
    this.granuleBytesInverse = 1 / blockBytes;
    this.capacityBytes = geometry.capacityBytes;
    this.granuleCount = Math.ceil(geometry.capacityBytes / blockBytes);
    const pageCount = Math.ceil(this.granuleCount / PAGE_GRANULES);
    this.pages = new Array<Int32Array | null>(pageCount).fill(null);
    this.pageCounts = new Int32Array(pageCount);
  }

  /** Bytes that are kept; a short last granule counts as a whole one. */
  get bytes(): number {
    return this.count * this.granuleBytes;
  }

  /** Keeps the granules that lie completely in the range. */
  keep(offsetBytes: number, lengthBytes: number): void {
    const endBytes = offsetBytes + lengthBytes;
    const first = Math.ceil(offsetBytes * this.granuleBytesInverse);
    const isAtEnd = endBytes === this.capacityBytes;
    const end = isAtEnd ? this.granuleCount : Math.floor(endBytes * this.granuleBytesInverse);
    for (let at = first; at < end; ) {
      const page = at >> PAGE_SHIFT;
      const base = page << PAGE_SHIFT;
      const pageEnd = Math.min(end - base, this.sizeOf(page));
      this.keepInPage(page, at - base, pageEnd);
      at = base + pageEnd;
    }
  }

  /** Forgets all granules that the range touches. */
  forget(offsetBytes: number, lengthBytes: number): void {
    if (this.count === 0 || lengthBytes === 0) return;
    const first = (offsetBytes * this.granuleBytesInverse) | 0;
    const end = (((offsetBytes + lengthBytes - 1) * this.granuleBytesInverse) | 0) + 1;
    this.forgetGranules(first, end);
  }

  /** Forgets granules [first, end). */
  forgetGranules(first: number, end: number): void {
    for (let at = first; at < end; ) {
      const page = at >> PAGE_SHIFT;
      const base = page << PAGE_SHIFT;
      const pageEnd = Math.min(end - base, this.sizeOf(page));
      if (this.pageCounts[page] > 0) this.forgetInPage(page, at - base, pageEnd);
      at = base + pageEnd;
    }
  }

  /** Forgets everything. */
  clear(): void {
    this.pages.fill(null);
    this.pageCounts.fill(0);
    this.count = 0;
  }

  /** True if the granule is kept. */
  has(granule: number): boolean {
    const bits = this.pages[granule >> PAGE_SHIFT];
    return bits !== null && bitAt(bits, 0, granule & (PAGE_GRANULES - 1));
  }

  /** The first granule that is kept, or -1. Looks at most at all pages and the bits of one. */
  first(): number {
    if (this.count === 0) return -1;
    let page = 0;
    while (this.pageCounts[page] === 0) page++;
    const found = findBit(this.pages[page]!, 0, 0, 0, this.sizeOf(page));
    return (page << PAGE_SHIFT) + found;
  }

  /** End of the run of kept granules that begins at `granule`, at most `end` and the end of its page. */
  runEnd(granule: number, end: number): number {
    const page = granule >> PAGE_SHIFT;
    const base = page << PAGE_SHIFT;
    const limit = Math.min(end - base, this.sizeOf(page));
    return base + findBit(this.pages[page]!, 0, -1, granule - base, limit);
  }

  private sizeOf(page: number): number {
    return Math.min(PAGE_GRANULES, this.granuleCount - (page << PAGE_SHIFT));
  }

  private keepInPage(page: number, from: number, to: number): void {
    const size = this.sizeOf(page);
    const before = this.pageCounts[page];
    if (before === size) return;
    let added = size - before;
    if (from > 0 || to < size) {
      const bits = this.pages[page] ?? new Int32Array(PAGE_WORDS);
      this.pages[page] = bits;
      added = to - from - countBits(bits, from, to);
      setBits(bits, 0, from, to);
    }
    this.count += added;
    this.pageCounts[page] = before + added;
    if (this.pageCounts[page] === size) this.pages[page] = ALL;
  }

  private forgetInPage(page: number, from: number, to: number): void {
    const found = this.pages[page]!;
    const removed = found === ALL ? to - from : countBits(found, from, to);
    if (removed === 0) return;
    this.count -= removed;
    this.pageCounts[page] -= removed;
    if (this.pageCounts[page] === 0) {
      this.pages[page] = null;
      return;
    }
    const bits = found === ALL ? ALL.slice() : found;
    this.pages[page] = bits;
    clearBits(bits, 0, from, to);
  }
}

/** Set bits in [from, to), which is not empty. */
function countBits(bits: Int32Array, from: number, to: number): number {
  const first = from >> 5;
  const last = (to - 1) >> 5;
  let count = 0;
  for (let index = first; index <= last; index++) {
    let word = bits[index];
    if (index === first) word &= -1 << (from & 31);
    if (index === last) word &= -1 >>> (31 - ((to - 1) & 31));
    word -= (word >>> 1) & 0x55555555;
    word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
    count += Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
  }
  return count;
}
