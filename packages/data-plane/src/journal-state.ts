/**
 * The states of a journal on a reactor. It is in one at a time:
 *
 * ```
 *          append            seal
 *   SOON ◀──────── IDLE ───────────▶ COMMITTING ── failed, or late ──▶ FAILED
 *     └─── NOP ────▶ ▲ ◀── on the medium ─┘                              ▲
 *                    └──▶ FULL ─────────── no room in time ──────────────┘
 *
 *   each of them ── close ──▶ CLOSING ── the kernel has answered ──▶ CLOSED
 * ```
 *
 * In SOON and COMMITTING, entries are in flight on the ring. In FAILED and CLOSING, late ones may be.
 */
import { assert } from "@blksnap/uring";

export const JournalState = {
  /** Nothing is in flight; entries may wait to be committed. */
  IDLE: 0,
  /** The entries being filled are committed when the reactor's batch is over. */
  SOON: 1,
  COMMITTING: 2,
  /** The log has no room for the entries being filled. */
  FULL: 3,
  /** Nothing is committed any more. */
  FAILED: 4,
  /** Memory and files stay until the kernel has answered. */
  CLOSING: 5,
  CLOSED: 6,
} as const;

const { IDLE, SOON, COMMITTING, FULL, FAILED, CLOSING, CLOSED } = JournalState;

function oneOf(...states: number[]): number {
  return states.reduce((mask, state) => mask | (1 << state), 0);
}

/** By state: one bit for each state that may follow. */
const NEXT = new Uint8Array(CLOSED + 1);
NEXT[IDLE] = oneOf(SOON, COMMITTING, FULL, CLOSING);
NEXT[SOON] = oneOf(IDLE, CLOSING);
NEXT[COMMITTING] = oneOf(IDLE, FAILED, CLOSING);
NEXT[FULL] = oneOf(IDLE, FAILED, CLOSING);
NEXT[FAILED] = oneOf(CLOSING);
NEXT[CLOSING] = oneOf(CLOSED);

export class JournalLife {
  #state: number = IDLE;

  is(state: number): boolean {
    return this.#state === state;
  }

  /** Nothing is committed any more. */
  get isOver(): boolean {
    return this.#state >= FAILED;
  }

  get isClosing(): boolean {
    return this.#state >= CLOSING;
  }

  enter(state: number): void {
    assert(((NEXT[this.#state] >> state) & 1) === 1, "a journal cannot go over to this state");
    this.#state = state;
  }
}
