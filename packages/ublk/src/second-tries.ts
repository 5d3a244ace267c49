/**
 * Requests that io_uring itself could not start: no memory for them (-ENOMEM, -EAGAIN), or no thread (-ECANCELED).
 * The file or device has not failed, and an error would make a file system give up its disk, or a snapshot its
 * blocks. So they are retried for a bounded time, and only then fail.
 *
 * ```
 *   submitted ─▶ one of those ─▶ waits ─▶ all that wait are submitted again
 *                    └──── for TRIES_MS by now: that is its result
 * ```
 *
 * Requests of a series follow from each other, and one caller waits for all of them: a failed copy is repeated block
 * by block. After one of them was given up, later ones are tried once, until one succeeds.
 */
import { isRingShort, type Reactor, type Timer } from "@blksnap/uring";

/** For a request: from its first try to the last. */
const TRIES_MS = 10_000;
/** Between two of them. */
export const TRIES_PAUSE_MS = 100;
export const TRIES_MAX: number = TRIES_MS / TRIES_PAUSE_MS;

export class SecondTries {
  readonly #reactor: Reactor;
  readonly #submit: (tag: number) => void;
  readonly #tries: Uint8Array;
  readonly #isWaiting: Uint8Array;
  readonly #isSeries: boolean;
  /** One of the series was given up, and none has completed since. */
  #isTimeUp = false;
  #timer: Timer | undefined;

  constructor(
    reactor: Reactor,
    depth: number,
    submit: (tag: number) => void,
    { isSeries = false }: { readonly isSeries?: boolean } = {},
  ) {
    this.#reactor = reactor;
    this.#isSeries = isSeries;
    this.#submit = submit;
    this.#tries = new Uint8Array(depth);
    this.#isWaiting = new Uint8Array(depth);
  }

  /** A new request of the tag. */
  begin(tag: number): void {
    this.#tries[tag] = this.#isTimeUp ? TRIES_MAX : 0;
  }

  /**
   * Submits the request again later, unless this result is final. Report each result of a series.
   * @returns whether it does
   */
  tryAgain(tag: number, result: number): boolean {
    if (!isRingShort(result)) {
      this.#isTimeUp = false;
      return false;
    }
    if (this.#tries[tag] === TRIES_MAX) {
      this.#isTimeUp = this.#isSeries;
      return false;
    }
    this.#tries[tag]++;
    this.#isWaiting[tag] = 1;
    this.#timer ??= this.#reactor.setTimer(TRIES_PAUSE_MS, () => this.#again());
    return true;
  }

  /** Whether nothing is in flight. */
  close(): void {
    if (this.#timer !== undefined) this.#reactor.cancelTimer(this.#timer);
    this.#timer = undefined;
  }

  #again(): void {
    this.#timer = undefined;
    let failure: unknown;
    for (let tag = 0; tag < this.#isWaiting.length; tag++) {
      if (this.#isWaiting[tag] === 0) continue;
      this.#isWaiting[tag] = 0;
      try {
        this.#submit(tag);
      } catch (error) {
        // Nothing else would submit the others.
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }
}
