/**
 * Limits of waits, in time in which this process runs. One that was stopped, or whose machine was suspended or paused,
 * has given the other side no chance: its answer may be there, or it was paused as well. So a limit is counted in
 * ticks, and a pause counts as one of them at most.
 */

const TICKS = 12;

/** Runs a function once after that time. Returns the function that prevents it. */
export type After = (ms: number, run: () => void) => () => void;

const byTimer: After = (ms, run) => {
  const timer = setTimeout(run, ms);
  return () => clearTimeout(timer);
};

export class RunLimit {
  readonly #tickMs: number;
  readonly #onOver: () => void;
  readonly #after: After;
  #left = 0;
  #cancel: () => void = () => undefined;

  /**
   * Begins. Call end() when nothing waits any more.
   * @param limitMs 0: it is over from the start, and `onOver` is not called
   */
  constructor(limitMs: number, onOver: () => void = () => undefined, after: After = byTimer) {
    this.#tickMs = limitMs / TICKS;
    this.#onOver = onOver;
    this.#after = after;
    this.restart();
  }

  get isOver(): boolean {
    return this.#left === 0;
  }

  /** Counts from the beginning again. */
  restart(): void {
    if (this.#tickMs === 0) return;
    this.#left = TICKS;
    this.#arm();
  }

  end(): void {
    this.#cancel();
  }

  #arm(): void {
    this.#cancel();
    this.#cancel = this.#after(this.#tickMs, () => {
      this.#left--;
      if (this.#left > 0) this.#arm();
      else this.#onOver();
    });
  }
}
