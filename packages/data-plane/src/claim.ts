/**
 * Decides who owns a late request that carries descriptors. They travel as numbers, and when a busy reactor handles the
 * request, the number of a closed descriptor may mean another file. So either the reactor takes the request, and uses
 * the descriptors only in that turn, or the main thread withdraws it, and may then close them. Making an area takes
 * several turns: in each of them the reactor checks whether the main thread has given up waiting.
 *
 * ```
 *   OPEN ──▶ TAKEN       by the reactor ──▶ ABANDONED   by the main thread, after another one
 *     └────▶ WITHDRAWN   by the main thread, after its time limit
 * ```
 */
import { BlksnapError } from "@blksnap/errors";

const State = { OPEN: 0, TAKEN: 1, WITHDRAWN: 2, ABANDONED: 3 } as const;

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

/** On the main thread: it stops waiting for a request that the reactor has taken. */
export function abandon(claim: Claim): void {
  Atomics.store(new Int32Array(claim), 0, State.ABANDONED);
}

/** On the reactor: whether descriptors of a request that it has taken may have been closed by now. */
export function isAbandoned(claim: Claim): boolean {
  return Atomics.load(new Int32Array(claim), 0) === State.ABANDONED;
}

/** A reactor did not answer in time. */
export class NoAnswerError extends BlksnapError<"NO_ANSWER"> {
  /** The reactor had begun: it may be using the descriptors. */
  readonly isTaken: boolean;

  constructor(what: string, isTaken: boolean) {
    super("NO_ANSWER", what);
    this.isTaken = isTaken;
  }
}

/** The answer in the form of ServeOptions of @blksnap/ublk. */
export function doubtOf(error: unknown): "served" | "unanswered" | undefined {
  if (!(error instanceof NoAnswerError)) return undefined;
  return error.isTaken ? "served" : "unanswered";
}
