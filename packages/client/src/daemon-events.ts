/** The whole daemon's events, through upgrades and crashes of it. */
import type { DaemonEvent } from "@blksnap/api";
import { resumed } from "./resumed.js";

/** Where the stream begins and ends. */
export interface DaemonEventsOptions {
  /** Number of the last event that has arrived; absent: all that are kept come. */
  readonly since?: number;
  /** Of which log that number is; absent: the present one. */
  readonly log?: string;
  /** Also what is still to come. */
  readonly follow?: boolean;
  /** With `follow`: how long a daemon that has gone is waited for, milliseconds. Default: not at all. */
  readonly resumeMs?: number;
}

type Wanted = Record<string, string | number | undefined>;

/**
 * Where some before the first are not kept any more, an event `lost` says how many. The stream continues with the
 * event after the last one, whatever daemon serves it.
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
