/** What the control server needs of the log of the whole daemon. */
import type { DaemonEvent } from "./types.js";

/** Where a reader begins; without `since`: at the oldest kept event. */
export interface EventLogOptions {
  /** Number of the last event that the reader has received. */
  readonly since?: number | undefined;
  /** The log of that number; absent: the current one. */
  readonly log?: string | undefined;
  /** Continue with new events, until the signal aborts or the daemon ends. */
  readonly follow?: boolean | undefined;
}

export interface EventLogControl {
  /** Events in order. If some before the first are no longer kept, an event `lost` comes first. */
  read(options: EventLogOptions, signal: AbortSignal): AsyncIterable<DaemonEvent>;
  /** A request may have changed the state: poll for the events now. */
  poll(): void;
}
