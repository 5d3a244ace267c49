/**
 * The outcome of a journal's commit, and whether it is submitted again.
 *
 * ```
 *   the kernel accepted a part of a chain ──▶ at once, ATTEMPTS_MAX times; then
 *   it had no memory or no thread ──────────▶ after a pause, as often as requests of a front
 *   the medium has failed ──────────────────▶ never: after a failed sync, the next one proves nothing
 * ```
 *
 * A broken link cancels the entries after it: the cause is in another result of the same chain.
 */
import { ECANCELED, EIO, ENOMEM } from "@blksnap/errors";
import { TRIES_MAX } from "@blksnap/ublk";
import { isRingShort, LINK_TORN } from "@blksnap/uring";

/** In place of an errno: the kernel accepted only a part of a chain. */
const TORN = -1;
/** Each takes a turn of the reactor: all of them may pass before the kernel has memory again. */
const ATTEMPTS_MAX = 100;

export const Again = { NEVER: 0, AT_ONCE: 1, LATER: 2 } as const;

export class CommitOutcome {
  /** The medium's answer: 0, or an errno. */
  #errno = 0;
  /** The kernel could not carry out a part of it: 0, an errno, or TORN. */
  #shortage = 0;
  /** How often it was submitted again at once, and after a pause. */
  #attempts = 0;
  #tries = 0;

  /** 0: the commit is on the medium. Else the reason why not. */
  get errno(): number {
    return this.#errno || (this.#shortage === TORN ? ENOMEM : this.#shortage);
  }

  /** A new commit begins. */
  begin(): void {
    this.#attempts = 0;
    this.#tries = 0;
  }

  /** The commit is submitted. */
  submitted(): void {
    this.#errno = 0;
    this.#shortage = 0;
  }

  /** @param bytes of a write; 0 for a sync */
  note(result: number, bytes: number): void {
    if (result === bytes) return;
    // A sync ends with ENOMEM, too, if the file system could not write its data.
    const isShort = bytes > 0 ? isRingShort(result) : result === -ECANCELED;
    if (result === LINK_TORN) this.#shortage = TORN;
    else if (!isShort) this.#errno = result < 0 ? -result : EIO;
    else if (this.#shortage === 0) this.#shortage = -result;
  }

  /** All of it has ended. Returns whether, and how, to submit it again, to the same sectors. */
  again(): number {
    if (this.#errno !== 0 || this.#shortage === 0) return Again.NEVER;
    if (this.#shortage === TORN && this.#attempts++ < ATTEMPTS_MAX) return Again.AT_ONCE;
    return this.#tries++ < TRIES_MAX ? Again.LATER : Again.NEVER;
  }
}
