/**
 * How often a reader retries while another thread resets the map: without a pause at first, because a reset mostly
 * takes microseconds; then with pauses, because that thread may have no processor, or wait for memory.
 */
const AT_ONCE = 16;
const PAUSES = 250;
const PAUSE_MS = 1;

const never = new Int32Array(new SharedArrayBuffer(4));

/** @returns whether to look again after `looks` attempts; sleeps 1 ms if those without a pause are used up */
export function mayLookAgain(looks: number): boolean {
  if (looks > AT_ONCE) Atomics.wait(never, 0, 0, PAUSE_MS);
  return looks < AT_ONCE + PAUSES;
}
