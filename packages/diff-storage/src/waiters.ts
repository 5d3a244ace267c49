import { DiffStorageError } from "./errors.js";
import type { Extent } from "./slot.js";
import type { Clock } from "./system.js";

/** Requests for slots that may wait at the same time. */
const WAITERS_MAX = 4096;

interface Waiter {
  readonly maxSlots: number;
  finish(answer: Extent | "full"): void;
}

/**
 * Callers that wait for slots, in order of arrival. Each waits at most for the time limit, even if growth continues but
 * brings too little for all of them.
 */
export class ExtentWaiters {
  #allocate: (maxSlots: number) => Extent | "wait" | "full";
  #clock: Clock;
  #timeoutMs: number;
  #queue = new Set<Waiter>();

  constructor(
    allocate: (maxSlots: number) => Extent | "wait" | "full",
    clock: Clock,
    timeoutMs: number,
  ) {
    this.#allocate = allocate;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  get count(): number {
    return this.#queue.size;
  }

  /** Rejects with ARGUMENT_INVALID beyond `WAITERS_MAX`. */
  add(maxSlots: number, signal: AbortSignal | undefined): Promise<Extent | "full"> {
    if (signal?.aborted) return Promise.resolve("full");
    if (this.#queue.size >= WAITERS_MAX) {
      const text = `${WAITERS_MAX} requests for slots wait already`;
      return Promise.reject(new DiffStorageError("ARGUMENT_INVALID", text));
    }
    return new Promise((resolve) => {
      const giveUp = (): void => waiter.finish("full");
      const waiter: Waiter = {
        maxSlots,
        finish: (answer) => {
          this.#queue.delete(waiter);
          cancelTimer();
          signal?.removeEventListener("abort", giveUp);
          resolve(answer);
        },
      };
      const cancelTimer = this.#clock.after(this.#timeoutMs, giveUp);
      signal?.addEventListener("abort", giveUp, { once: true });
      this.#queue.add(waiter);
    });
  }

  /** Answers callers from the front as long as the answer is not "wait". */
  serve(): void {
    for (const waiter of this.#queue) {
      const answer = this.#allocate(waiter.maxSlots);
      if (answer === "wait") return;
      waiter.finish(answer);
    }
  }
}
