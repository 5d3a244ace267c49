/** Bit scans over ranges of 32-bit words. All numbers are small integers; nothing is allocated. */

/**
 * The first bit in [from, to) that differs from `skip` (0: first set bit, -1: first clear bit), or
 * `to`. Bit 0 is the lowest bit of words[base].
 */
export function findBit(
  words: Int32Array,
  base: number,
  skip: number,
  from: number,
  to: number,
): number {
  if (from >= to) return to;
  let index = from >> 5;
  const last = (to - 1) >> 5;
  let word = (words[base + index] ^ skip) & (-1 << (from & 31));
  while (word === 0) {
    if (index === last) return to;
    index++;
    word = words[base + index] ^ skip;
  }
  const found = (index << 5) + 31 - Math.clz32(word & -word);
  return Math.min(found, to);
}

/** Mask of the bits of word `index` that lie in [from, to). */
function maskOf(index: number, from: number, to: number): number {
  let mask = -1;
  if (index === from >> 5) mask &= -1 << (from & 31);
  if (index === (to - 1) >> 5) mask &= -1 >>> (31 - ((to - 1) & 31));
  return mask;
}

/** Sets the bits [from, to). */
export function setBits(words: Int32Array, base: number, from: number, to: number): void {
  for (let index = from >> 5; index <= (to - 1) >> 5; index++) {
    words[base + index] |= maskOf(index, from, to);
  }
}

/** Clears the bits [from, to). */
export function clearBits(words: Int32Array, base: number, from: number, to: number): void {
  for (let index = from >> 5; index <= (to - 1) >> 5; index++) {
    words[base + index] &= ~maskOf(index, from, to);
  }
}

/** True if the bit is set. */
export function bitAt(words: Int32Array, base: number, bit: number): boolean {
  return ((words[base + (bit >> 5)] >>> (bit & 31)) & 1) !== 0;
}
