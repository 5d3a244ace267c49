/** Ticks for the blocked writes of a diff area: they retry at each tick, and finally give up. */
import type { DiffArea } from "@blksnap/engine";
import type { Reactor } from "@blksnap/uring";

export class AreaTicker {
  readonly #reactor: Pick<Reactor, "setTimer">;
  readonly #tickMs: number;
  #ticking = false;

  constructor(reactor: Pick<Reactor, "setTimer">, tickMs: number) {
    this.#reactor = reactor;
    this.#tickMs = tickMs;
  }

  /** Ticks as long as writes of the area are blocked. True if it was not ticking already. */
  start(area: DiffArea): boolean {
    if (this.#ticking) return false;
    this.#ticking = true;
    this.#tickLater(area);
    return true;
  }

  #tickLater(area: DiffArea): void {
    this.#reactor.setTimer(this.#tickMs, () => {
      try {
        area.tick();
      } finally {
        if (area.blockedWrites > 0) this.#tickLater(area);
        else this.#ticking = false;
      }
    });
  }
}
