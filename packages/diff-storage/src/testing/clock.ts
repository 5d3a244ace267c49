import type { Clock } from "../system.js";

interface Timer {
  readonly dueMs: number;
  readonly order: number;
  readonly expired: () => void;
}

/** A clock that stands still until it is moved. */
export class ManualClock implements Clock {
  #nowMs = 0;
  #order = 0;
  #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, expired: () => void): () => void {
    const timer = { dueMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, expired };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** Timers that have not expired yet. */
  get timerCount(): number {
    return this.#timers.size;
  }

  /**
   * Advances by `byMs`; runs the timers that expire in between in their order, and lets promises settle before, between
   * and after them.
   */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    for (;;) {
      await settle();
      const due = [...this.#timers]
        .filter((timer) => timer.dueMs <= untilMs)
        .sort((a, b) => a.dueMs - b.dueMs || a.order - b.order)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.dueMs);
      due.expired();
    }
    this.#nowMs = untilMs;
    await settle();
  }
}

/** Lets all promises that can settle without time passing do so. */
export function settle(): Promise<void> {
  return new Promise((done) => setImmediate(done));
}
