/** Longest delay setTimeout takes; a larger one would fire at once. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/**
 * Calls `expired` once after `delayMs` real milliseconds, which may exceed what one setTimeout can
 * count (the kernel's interface takes a u32). Returns a function that cancels the timer.
 */
export function startTimer(delayMs: number, expired: () => void): () => void {
  const deadlineMs = performance.now() + delayMs;
  let timer: NodeJS.Timeout;
  const arm = (): void => {
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) {
      expired();
      return;
    }
    timer = setTimeout(arm, Math.min(Math.ceil(leftMs), TIMEOUT_MAX_MS));
  };
  timer = setTimeout(arm, Math.min(Math.ceil(delayMs), TIMEOUT_MAX_MS));
  return () => clearTimeout(timer);
}
