/** Holds writes to an original at a take, for a bounded time, and tells when those in flight have ended. */
import type { TrackerEngine } from "@blksnap/engine";
import { assert, type Reactor, type Timer } from "@blksnap/uring";

export class WriteHold {
  readonly #reactor: Pick<Reactor, "setTimer" | "cancelTimer">;
  readonly #engine: Pick<TrackerEngine, "hold" | "release" | "switchAndRelease" | "isHolding">;
  #sinceMs = 0;
  #stallUs = 0;
  #timer: Timer | undefined;
  #onDrained: (() => void) | undefined;

  constructor(
    reactor: Pick<Reactor, "setTimer" | "cancelTimer">,
    engine: Pick<TrackerEngine, "hold" | "release" | "switchAndRelease" | "isHolding">,
  ) {
    this.#reactor = reactor;
    this.#engine = engine;
  }

  get isActive(): boolean {
    return this.#sinceMs !== 0;
  }

  /** @param onExpired writes continued by themselves, because they were not released in time */
  begin(deadlineMs: number, onDrained: () => void, onExpired: () => void): void {
    assert(!this.isActive, "writes are held already");
    this.#sinceMs = performance.now();
    this.#onDrained = onDrained;
    this.#timer = this.#reactor.setTimer(deadlineMs, () => {
      this.release();
      onExpired();
    });
    this.#engine.hold();
  }

  drained(): void {
    const told = this.#onDrained;
    this.#onDrained = undefined;
    told?.();
  }

  /** The instant of the take. Answers for how long writes were held, in microseconds. */
  switchAndRelease(): number {
    this.#endBy(() => this.#engine.switchAndRelease());
    return this.#stallUs;
  }

  release(): void {
    if (this.isActive) this.#endBy(() => this.#engine.release());
  }

  /** What the engine throws may come after the hold's end, or leave it as it is. */
  #endBy(step: () => void): void {
    try {
      step();
    } finally {
      if (!this.#engine.isHolding) this.#end();
    }
  }

  #end(): void {
    assert(this.isActive, "no writes are held");
    this.#stallUs = (performance.now() - this.#sinceMs) * 1000;
    this.#sinceMs = 0;
    this.#onDrained = undefined;
    if (this.#timer !== undefined) this.#reactor.cancelTimer(this.#timer);
    this.#timer = undefined;
  }
}
