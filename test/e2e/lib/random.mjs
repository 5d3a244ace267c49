/** Random numbers and bytes from a seed, so that a failed run can be repeated. */
import { createCipheriv, createHash } from "node:crypto";

const POOL_BYTES = 2 * 2 ** 20;

/** @param {string | number} seed */
export function seededRandom(seed) {
  const key = createHash("sha256").update(String(seed)).digest().subarray(0, 16);
  let state = key.readUInt32LE(0) | 1;
  // xorshift32: its quality is enough to choose offsets with.
  function next() {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  }
  // A cipher makes bytes much faster than JavaScript, which is slow in an emulated guest.
  const cipher = createCipheriv("aes-128-ctr", key, Buffer.alloc(16));
  const pool = cipher.update(Buffer.alloc(POOL_BYTES));
  return {
    /** A whole number from 0 to `below` - 1. */
    below: (below) => Math.floor((next() / 2 ** 32) * below),
    /** True once in `of` times. */
    once: (of) => next() % of === 0,
    pick: (list) => list[next() % list.length],
    /** Fills the target with bytes that no earlier call gave at the same alignment. */
    fill(target) {
      for (let at = 0; at < target.length; ) {
        const from = (next() % (POOL_BYTES / 2)) & ~7;
        at += pool.copy(target, at, from, Math.min(POOL_BYTES, from + POOL_BYTES / 2));
      }
      return target;
    },
    /** That many bytes. */
    bytes(length) {
      return this.fill(Buffer.allocUnsafe(length));
    },
  };
}

/** The seeds of a random test: that of $SEED alone, to replay it, or the given ones. */
export function seedsOr(seeds) {
  return process.env.SEED ? [process.env.SEED] : seeds;
}
