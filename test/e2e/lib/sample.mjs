/** A sample of a list by a seed: a few runs with different seeds cover all of it. */
import { createHash } from "node:crypto";

/**
 * Every Nth of the list, at least one where it has any; all of it where there is no seed.
 *
 * @template T
 * @param {string} name of the list: different lists begin at different places
 * @param {T[]} list
 * @param {number} parts one in so many
 * @param {string | undefined} seed
 * @returns {T[]}
 */
export function partOf(name, list, parts, seed) {
  if (seed === undefined || list.length === 0) return list;
  const step = Math.min(parts, list.length);
  const digest = createHash("sha256").update(`${seed} ${name}`).digest();
  const first = digest.readUInt32LE(0) % step;
  return list.filter((_, index) => index % step === first);
}
