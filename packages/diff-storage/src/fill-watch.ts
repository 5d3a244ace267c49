import type { Clock } from "./system.js";

/** Waits until a storage is filled, as long as that makes progress. */
export class FillWatch {
  readonly #clock: Clock;
  readonly #stallMs: number;
  readonly #signal: AbortSignal | undefined;
  #rearm: () => void = () => undefined;

  /** @param stallMs longest time from one step to the next */
  constructor(clock: Clock, stallMs: number, signal: AbortSignal | undefined) {
    this.#clock = clock;
    this.#stallMs = stallMs;
    this.#signal = signal;
  }

  /** Notes progress. */
  stepped(): void {
    this.#rearm();
  }

  /** Settles with the work; rejects when the signal aborts, or the work makes no progress. */
  wait(work: Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      let cancel: () => void = () => undefined;
      const end = (): void => {
        cancel();
        this.#rearm = () => undefined;
        this.#signal?.removeEventListener("abort", end);
        resolve();
      };
      this.#rearm = () => {
        cancel();
        cancel = this.#clock.after(this.#stallMs, end);
      };
      this.#rearm();
      this.#signal?.addEventListener("abort", end, { once: true });
      if (this.#signal?.aborted) end();
      void work.then(end);
    });
  }
}
