/**
 * The outcome of a journal's commit, and whether it is submitted again.
 *
 * ```
 *   the kernel took only a part of a chain ──▶ at once, ATTEMPTS_MAX times; then
 *   it had no memory or no thread ───────────▶ after a pause, as long as requests of a front are
 *   the medium has failed ───────────────────▶ never: a sync that has failed says nothing the next time
 * ```
 *
 * A broken link cancels the entries after it: the cause is among the results of the same chain.
 */
import { ECANCELED, EIO, ENOMEM } from "@blksnap/errors";
import { TRIES_MAX } from "@blksnap/ublk";
import { isRingShort, LINK_TORN } from "@blksnap/uring";

/** In place of an errno: the kernel took only a part of a chain. */
const TORN = -1;
/** Each is a turn of the reactor: all of them may be over in less time than the kernel needs to have memory again. */
const ATTEMPTS_MAX = 100;

export const Again = { NEVER: 0, AT_ONCE: 1, LATER: 2 } as const;

export class CommitOutcome {
  /** What the medium has said: 0, or an errno. */
  #errno = 0;
  /** The kernel could not carry out a part of it: 0, an errno, or TORN. */
  #shortage = 0;
  /** How often it was submitted again at once, and after a pause. */
  #attempts = 0;
  #tries = 0;

  /** 0: it is on the medium. Else why it is not. */
  get errno(): number {
    return this.#errno || (this.#shortage === TORN ? ENOMEM : this.#shortage);
  }

  /** Of a new commit. */
  begin(): void {
    this.#attempts = 0;
    this.#tries = 0;
  }

  /** The commit is submitted. */
  submitted(): void {
    this.#errno = 0;
    this.#shortage = 0;
  }

  /** @param bytes of a write, or 0: of a sync */
  note(result: number, bytes: number): void {
    if (result === bytes) return;
    // A file system's own ENOMEM ends a sync, too: that of data which it could not write.
    const isShort = bytes > 0 ? isRingShort(result) : result === -ECANCELED;
    if (result === LINK_TORN) this.#shortage = TORN;
    else if (!isShort) this.#errno = result < 0 ? -result : EIO;
    else if (this.#shortage === 0) this.#shortage = -result;
  }

  /** All of it has ended: whether it is to be submitted again, to the same places. */
  again(): number {
    if (this.#errno !== 0 || this.#shortage === 0) return Again.NEVER;
    if (this.#shortage === TORN && this.#attempts++ < ATTEMPTS_MAX) return Again.AT_ONCE;
    return this.#tries++ < TRIES_MAX ? Again.LATER : Again.NEVER;
  }
}
