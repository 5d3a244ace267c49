/**
 * The active number of a CBT map, and a check that detects damage to it: with a number that is too low, changes
 * would count as old.
 */
import { CbtWord } from "./cbt-layout.js";

export const ACTIVE_MAX = 255;

/** A kill between the two stores leaves the check of the new number beside the old one. */
export function storeActive(words: Int32Array, active: number): void {
  Atomics.store(words, CbtWord.CHECK, ~active);
  Atomics.store(words, CbtWord.ACTIVE, active);
}

/**
 * The number to continue with after an owner was killed, or undefined if it is damaged. After a kill during a switch
 * it is the larger of the two: "changed" too often is always right.
 */
export function recoveredActive(words: Int32Array): number | undefined {
  const active = words[CbtWord.ACTIVE];
  const checked = ~words[CbtWord.CHECK];
  const fits = active === checked || active + 1 === checked;
  return fits && checked >= 1 && checked <= ACTIVE_MAX ? checked : undefined;
}
