/**
 * How often a reader retries while another thread resets the map: without a pause at first, because a reset mostly
 * takes microseconds; then with pauses, because that thread may have no processor, or wait for memory.
 */
const AT_ONCE = 16;
const PAUSES = 250;
const PAUSE_MS = 1;

const never = new Int32Array(new SharedArrayBuffer(4));

/** @returns whether to retry after so many attempts; sleeps 1 ms if those without a pause are used up */
export function mayRetry(attempts: number): boolean {
  if (attempts > AT_ONCE) Atomics.wait(never, 0, 0, PAUSE_MS);
  return attempts < AT_ONCE + PAUSES;
}
