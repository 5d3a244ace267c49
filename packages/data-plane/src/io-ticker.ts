/**
 * Time for the bounds of I/O: as long as something is in flight that has one, all devices of a reactor are
 * told at even intervals, by one timer.
 */
import type { Reactor } from "@blksnap/uring";

/** Ticks in the time that I/O of a store may take. What is not answered for one less is late. */
const TICKS_PER_TIMEOUT = 8;
/** For a copy or a part of an image request. */
export const LATE_TICKS: number = TICKS_PER_TIMEOUT - 1;
/** For a commit of a journal: the rest of the time is for giving it up on the medium, giveUpMs(). */
export const COMMIT_LATE_TICKS = 5;

/** How long to wait for the medium to forget what its journal does not say any more. */
export function giveUpMs(timeoutMs: number): number {
  return (timeoutMs / TICKS_PER_TIMEOUT) * (TICKS_PER_TIMEOUT - COMMIT_LATE_TICKS - 1);
}

/** Listens to the passing of time. */
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
          // Time continues for all others, and for what this one has in flight.
          isBusy = true;
          failure ??= error;
        }
      }
      if (isBusy) this.start();
      if (failure !== undefined) throw failure;
    });
  }
}
