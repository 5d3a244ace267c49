/**
 * The active number of a CBT map, and the proof that it is undamaged: a number that is too low would make changes
 * count as old.
 */
import { CbtWord } from "./cbt-layout.js";

export const ACTIVE_MAX = 255;

/** Killed between the two stores, the map has the old number beside the check of the new one. */
export function storeActive(words: Int32Array, active: number): void {
  Atomics.store(words, CbtWord.CHECK, ~active);
  Atomics.store(words, CbtWord.ACTIVE, active);
}

/**
 * The number to continue with after an owner was killed, or undefined when it is damaged. Killed in a
 * switch it is the larger one, which is right in any case: it says "changed" too often.
 */
export function recoveredActive(words: Int32Array): number | undefined {
  const active = words[CbtWord.ACTIVE];
  const checked = ~words[CbtWord.CHECK];
  const fits = active === checked || active + 1 === checked;
  return fits && checked >= 1 && checked <= ACTIVE_MAX ? checked : undefined;
}
