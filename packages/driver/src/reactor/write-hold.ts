/** For how long writes to an original are held at a take, and who waits for those in flight. */
import { assert } from "@blksnap/uring";

export class WriteHold {
  #sinceMs = 0;
  #onDrained: (() => void) | undefined;

  get isActive(): boolean {
    return this.#sinceMs !== 0;
  }

  /** Answers what tells this hold from a later one. */
  begin(onDrained: () => void): number {
    this.#sinceMs = performance.now();
    this.#onDrained = onDrained;
    return this.#sinceMs;
  }

  /** True as long as the hold that began so lasts. */
  isThe(begin: number): boolean {
    return this.#sinceMs === begin;
  }

  drained(): void {
    const told = this.#onDrained;
    this.#onDrained = undefined;
    told?.();
  }

  /** Answers for how long writes were held, in microseconds. */
  end(): number {
    assert(this.#sinceMs !== 0, "no writes are held");
    const stallUs = (performance.now() - this.#sinceMs) * 1000;
    this.#sinceMs = 0;
    this.#onDrained = undefined;
    return stallUs;
  }
}
