/** Waiting for a state of the system that is not announced. */
import { setTimeout as sleep } from "node:timers/promises";

const PAUSE_MS = 50;

/**
 * Asks until the answer is neither false nor undefined, and gives it back.
 *
 * @param {string} what for the error message
 * @param {() => unknown} ask may be asynchronous
 */
export async function until(what, ask, timeLimitMs = 300_000) {
  const end = performance.now() + timeLimitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== false && answer !== undefined) return answer;
    if (performance.now() > end) throw new Error(`waited ${timeLimitMs} ms in vain until ${what}`);
    await sleep(PAUSE_MS);
  }
}
