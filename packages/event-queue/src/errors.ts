import { BlksnapError } from "@blksnap/errors";

/** What went wrong, as a stable name that callers may compare. */
export type EventQueueErrorCode =
  /** An event was pushed after `close()`. */
  | "QUEUE_CLOSED"
  /** An option or argument is outside its documented range. */
  | "ARGUMENT_INVALID"
  /** `subscribe` was asked to start after the next event. */
  | "SEQUENCE_UNKNOWN"
  /** More waits or followers than the queue's bound at the same time. */
  | "TOO_MANY_READERS";

/** The only error class this package throws; `code` is stable, the message is for people. */
export class EventQueueError extends BlksnapError<EventQueueErrorCode> {}

/** Throws ARGUMENT_INVALID unless `value` is an integer in [`min`, `max`]. */
export function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  throw new EventQueueError(
    "ARGUMENT_INVALID",
    `${name} must be an integer from ${min} to ${max}, not ${value}`,
  );
}
