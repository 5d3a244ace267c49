import { assert } from "./errors.js";

const WORD_BITS = 32;

/** Consecutive set bits. */
export interface Run {
  readonly first: number;
  readonly count: number;
}

/** Bits of a 32-bit word from `low` to below `high` (0 ≤ low < high ≤ 32). */
function maskOf(low: number, high: number): number {
  const upTo = high === WORD_BITS ? 0xffffffff : (1 << high) - 1;
  return (upTo & ~((1 << low) - 1)) >>> 0;
}

function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}

/**
 * A set of slot indexes as bits, with a summary bit for each word that is not empty.
 *
 * ```text
 * summary  [ 1 0 1 … ]      bit w set: word w holds at least one bit
 *            │   └───────┐
 * words    [0x00f0]  [0] [0x8001] …
 * ```
 *
 * Neighbours merge without effort, and the size is bounded by the store, one bit per slot, whatever the pattern of
 * frees; the summary keeps the search for the next set bit short.
 */
export class SlotBitmap {
  #words = new Uint32Array(WORD_BITS);
  #summary = new Uint32Array(1);
  #count = 0;

  /** Number of set bits. */
  get count(): number {
    return this.#count;
  }

  has(index: number): boolean {
    const word = index >>> 5;
    return word < this.#words.length && ((this.#words[word] >>> (index & 31)) & 1) === 1;
  }

  /** Sets `count` bits that must all be clear. */
  add(first: number, count: number): void {
    this.#ensure(first + count);
    this.#change(first, count, true);
    this.#count += count;
  }

  /** Clears `count` bits that must all be set. */
  remove(first: number, count: number): void {
    assert(first + count <= this.#words.length * WORD_BITS, "removed bits exist");
    this.#change(first, count, false);
    this.#count -= count;
  }

  /** The first run of set bits at or after `from`, cut at `maxCount` bits. */
  findRun(from: number, maxCount: number): Run | undefined {
    assert(maxCount > 0, "a run has at least one bit");
    const first = this.#firstSet(from);
    if (first === undefined) return undefined;
    let count = 1;
    while (count < maxCount && this.has(first + count)) {
      const index = first + count;
      const wholeWord = (index & 31) === 0 && this.#words[index >>> 5] === 0xffffffff;
      count += wholeWord ? WORD_BITS : 1;
    }
    return { first, count: Math.min(count, maxCount) };
  }

  #firstSet(from: number): number | undefined {
    if (from >= this.#words.length * WORD_BITS) return undefined;
    const start = from >>> 5;
    const head = this.#words[start] & maskOf(from & 31, WORD_BITS);
    if (head !== 0) return start * WORD_BITS + lowestBit(head);
    const next = start + 1;
    for (let group = next >>> 5; group < this.#summary.length; group++) {
      const low = group === next >>> 5 ? next & 31 : 0;
      const bits = this.#summary[group] & maskOf(low, WORD_BITS);
      if (bits === 0) continue;
      const word = group * WORD_BITS + lowestBit(bits);
      return word * WORD_BITS + lowestBit(this.#words[word]);
    }
    return undefined;
  }

  #change(first: number, count: number, set: boolean): void {
    assert(count > 0 && first >= 0, "a range of bits");
    const end = first + count;
    for (let index = first; index < end; ) {
      const word = index >>> 5;
      const high = Math.min(WORD_BITS, end - word * WORD_BITS);
      const mask = maskOf(index & 31, high);
      const held = (this.#words[word] & mask) >>> 0;
      assert(held === (set ? 0 : mask), "bits change exactly once");
      this.#words[word] = set ? this.#words[word] | mask : this.#words[word] & ~mask;
      const summaryBit = 1 << (word & 31);
      if (this.#words[word] !== 0) this.#summary[word >>> 5] |= summaryBit;
      else this.#summary[word >>> 5] &= ~summaryBit;
      index = word * WORD_BITS + high;
    }
  }

  #ensure(bits: number): void {
    if (bits <= this.#words.length * WORD_BITS) return;
    let length = this.#words.length;
    while (length * WORD_BITS < bits) length *= 2;
    const words = new Uint32Array(length);
    words.set(this.#words);
    const summary = new Uint32Array(Math.ceil(length / WORD_BITS));
    summary.set(this.#summary);
    this.#words = words;
    this.#summary = summary;
  }
}
