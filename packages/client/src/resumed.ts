/** A stream that resumes after an interruption, with the next daemon. */
import { setTimeout as sleep } from "node:timers/promises";
import { isInBetween } from "./daemon-change.js";

const PAUSE_MS = 50;

/**
 * @param ask requests what has not been received yet
 * @param resumeMs how long to wait for a daemon; 0: the first loss of the connection ends the stream
 */
export async function* resumed<Item>(
  ask: () => AsyncIterable<Item>,
  resumeMs: number,
): AsyncGenerator<Item> {
  let lostAtMs: number | undefined;
  for (;;) {
    try {
      for await (const item of ask()) {
        lostAtMs = undefined;
        yield item;
      }
      return;
    } catch (error) {
      const nowMs = performance.now();
      lostAtMs ??= nowMs;
      if (resumeMs === 0 || !isInBetween(error) || nowMs - lostAtMs >= resumeMs) throw error;
    }
    await sleep(PAUSE_MS);
  }
}
