/** What the control server asks of the log of the whole daemon. */
import type { DaemonEvent } from "./types.js";

/** Where a reader begins; without `since`: with the oldest event that is kept. */
export interface EventLogOptions {
  /** Number of the last event that has arrived. */
  readonly since?: number | undefined;
  /** Of which log that number is; absent: of the present one. */
  readonly log?: string | undefined;
  /** Also what is still to come: then it ends with the signal, or with the daemon. */
  readonly follow?: boolean | undefined;
}

export interface EventLogControl {
  /** Events in order. Where some before the first are not kept, an event `lost` comes first. */
  read(options: EventLogOptions, signal: AbortSignal): AsyncIterable<DaemonEvent>;
  /** A request has changed something: what it was is looked for now. */
  look(): void;
}
