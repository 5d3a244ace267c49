/** The whole daemon's events, through upgrades and crashes of it. */
import type { DaemonEvent } from "@blksnap/api";
import { resumed } from "./resumed.js";

/** Where the stream begins and ends. */
export interface DaemonEventsOptions {
  /** Number of the last received event; absent: begin with the oldest kept one. */
  readonly since?: number;
  /** The log of that number; absent: the current one. */
  readonly log?: string;
  /** Continue with new events. */
  readonly follow?: boolean;
  /** With `follow`: how long to wait for a daemon that is gone, in milliseconds. Default: not at all. */
  readonly resumeMs?: number;
}

type Wanted = Record<string, string | number | undefined>;

/**
 * If some events before the first are no longer kept, an event `lost` says how many. The stream continues after the
 * last event, whatever daemon serves it.
 */
export async function* daemonEvents(
  ask: (wanted: Wanted) => AsyncIterable<DaemonEvent>,
  { since: first, log: firstLog, follow = false, resumeMs = 0 }: DaemonEventsOptions,
): AsyncGenerator<DaemonEvent> {
  let since = first;
  let log = firstLog;
  const next = () => ask({ since, log, follow: follow ? "true" : undefined });
  for await (const event of resumed(next, follow ? resumeMs : 0)) {
    since = event.sequence;
    log = event.log;
    yield event;
  }
}
