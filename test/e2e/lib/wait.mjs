/** Waits for an unannounced state of the system. */
import { setTimeout as sleep } from "node:timers/promises";

const PAUSE_MS = 50;

/**
 * Polls until the result is neither false nor undefined, and returns it.
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
