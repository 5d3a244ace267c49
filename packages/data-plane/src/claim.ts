/**
 * Decides who owns a late request that carries descriptors. They travel as numbers, and by the time that a busy
 * reactor handles it, the number of a closed one may mean another file. So either the reactor takes the request, and
 * uses its descriptors only in that turn, or until an area is made or dropped, or the main thread withdraws it, and may
 * then close them.
 *
 * ```
 *   OPEN ──▶ TAKEN       by the reactor
 *     └────▶ WITHDRAWN   by the main thread, after its time-out
 * ```
 */
import { BlksnapError } from "@blksnap/errors";

const State = { OPEN: 0, TAKEN: 1, WITHDRAWN: 2 } as const;

/** Shared by both threads. */
export type Claim = SharedArrayBuffer;

export function makeClaim(): Claim {
  return new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
}

/** On the reactor: whether the request may be carried out. */
export function acquireClaim(claim: Claim): boolean {
  return Atomics.compareExchange(new Int32Array(claim), 0, State.OPEN, State.TAKEN) === State.OPEN;
}

/** On the main thread: whether the request will never be carried out. */
export function withdraw(claim: Claim): boolean {
  const cell = new Int32Array(claim);
  return Atomics.compareExchange(cell, 0, State.OPEN, State.WITHDRAWN) !== State.TAKEN;
}

/** A reactor did not answer in time. */
export class NoAnswerError extends BlksnapError<"NO_ANSWER"> {
  /** It had begun: what it was given by number may be in use there. */
  readonly isTaken: boolean;

  constructor(what: string, isTaken: boolean) {
    super("NO_ANSWER", what);
    this.isTaken = isTaken;
  }
}

/** As ServeOptions of @blksnap/ublk has it. */
export function doubtOf(error: unknown): "served" | "unanswered" | undefined {
  if (!(error instanceof NoAnswerError)) return undefined;
  return error.isTaken ? "served" : "unanswered";
}
