/** Holds writes to an original at a take, for a bounded time, and reports when those in flight have ended. */
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

  /** @param onExpired called if the writes continue because they were not released in time */
  begin(deadlineMs: number, onDrained: () => void, onExpired: () => void): void {
    assert(!this.isActive, "writes are held already");
    this.#sinceMs = performance.now();
    this.#onDrained = onDrained;
    this.#timer = this.#reactor.setTimer(deadlineMs, () => {
      // What one of the held writes throws is not about the hold.
      try {
        this.release();
      } finally {
        onExpired();
      }
    });
    this.#engine.hold();
  }

  drained(): void {
    const onDrained = this.#onDrained;
    this.#onDrained = undefined;
    onDrained?.();
  }

  /** The instant of the take. Returns how long writes were held, in microseconds. */
  switchAndRelease(): number {
    this.#endBy(() => this.#engine.switchAndRelease());
    return this.#stallUs;
  }

  release(): void {
    if (this.isActive) this.#endBy(() => this.#engine.release());
  }

  /** If the engine throws, the hold may have ended or not. */
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
