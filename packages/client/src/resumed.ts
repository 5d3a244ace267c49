/** A stream that resumes after an interruption, with the next daemon. */
import { setTimeout as sleep } from "node:timers/promises";
import { isInBetween } from "./daemon-change.js";
import { RunLimit } from "./run-limit.js";

const PAUSE_MS = 50;

/**
 * @param ask requests what has not been received yet
 * @param resumeMs how long to wait for a daemon; 0: the first loss of the connection ends the stream
 */
export async function* resumed<Item>(
  ask: () => AsyncIterable<Item>,
  resumeMs: number,
): AsyncGenerator<Item> {
  let lost: RunLimit | undefined;
  try {
    for (;;) {
      try {
        for await (const item of ask()) {
          lost?.end();
          lost = undefined;
          yield item;
        }
        return;
      } catch (error) {
        lost ??= new RunLimit(resumeMs);
        if (!isInBetween(error) || lost.isOver) throw error;
      }
      await sleep(PAUSE_MS);
    }
  } finally {
    lost?.end();
  }
}
