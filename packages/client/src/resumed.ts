/** A stream of events that continues where it broke off, with the daemon that serves next. */
import { setTimeout as sleep } from "node:timers/promises";
import type { SnapshotEvent } from "@blksnap/api";
import { isInBetween } from "./daemon-change.js";

const PAUSE_MS = 50;

/**
 * @param follow asks a daemon for the events from a sequence number on
 * @param resumeMs how long no daemon may serve; 0: the first loss of the connection ends the stream
 */
export async function* resumed(
  follow: (from: number) => AsyncIterable<SnapshotEvent>,
  from: number,
  resumeMs: number,
): AsyncGenerator<SnapshotEvent> {
  let next = from;
  let lostAtMs: number | undefined;
  for (;;) {
    try {
      for await (const event of follow(next)) {
        next = event.sequence + 1;
        lostAtMs = undefined;
        yield event;
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
