/**
 * Ticks for the bounds of I/O: as long as I/O with a bound is in flight, one timer ticks all devices of a reactor at
 * even intervals.
 */
import type { Reactor } from "@blksnap/uring";

/** Ticks per time limit of a store. I/O that is not answered within one less is late. */
const TICKS_PER_TIMEOUT = 8;
/** For a copy or a part of an image request. */
export const LATE_TICKS: number = TICKS_PER_TIMEOUT - 1;
/** For a commit of a journal: the rest of the time is for giveUpMs(), during which the medium gives it up. */
export const COMMIT_LATE_TICKS = 5;

/** How long to wait until data that the journal no longer refers to is gone from the medium. */
export function giveUpMs(timeoutMs: number): number {
  return (timeoutMs / TICKS_PER_TIMEOUT) * (TICKS_PER_TIMEOUT - COMMIT_LATE_TICKS - 1);
}

/** Receives ticks. */
export interface Timed {
  /** True: something is in flight. */
  tickIo(): boolean;
}

export class IoTicker {
  readonly #reactor: Pick<Reactor, "setTimer">;
  readonly #tickMs: number;
  readonly #users = new Set<Timed>();
  #isArmed = false;

  /** @param timeoutMs bound of a store's I/O */
  constructor(reactor: Pick<Reactor, "setTimer">, timeoutMs: number) {
    this.#reactor = reactor;
    this.#tickMs = timeoutMs / TICKS_PER_TIMEOUT;
  }

  add(user: Timed): void {
    this.#users.add(user);
  }

  remove(user: Timed): void {
    this.#users.delete(user);
  }

  /** I/O begins. */
  start(): void {
    if (!this.#isArmed) this.#arm();
  }

  #arm(): void {
    this.#isArmed = true;
    this.#reactor.setTimer(this.#tickMs, () => {
      this.#isArmed = false;
      let isBusy = false;
      let failure: unknown;
      for (const user of this.#users) {
        try {
          isBusy = user.tickIo() || isBusy;
        } catch (error) {
          // The others, and what this one has in flight, still need ticks.
          isBusy = true;
          failure ??= error;
        }
      }
      if (isBusy) this.start();
      if (failure !== undefined) throw failure;
    });
  }
}
