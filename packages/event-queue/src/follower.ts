import { EventQueueError } from "./errors.js";
import type { Delivery, EventRing } from "./ring.js";

/** Calls to `next()` that one follower may have outstanding; `for await` has one. */
export const PENDING_NEXT_MAX = 1024;

type Resolve<E> = (result: IteratorResult<Delivery<E>, undefined>) => void;

/**
 * A reader that sees every event without consuming it: an async iterator over a cursor of its own.
 *
 * Iteration ends after `return()` (what leaving a `for await` calls), after the abort signal fires,
 * or when the queue is closed and all events pushed before were delivered. It never throws for these.
 */
export class Follower<E> implements AsyncIterableIterator<Delivery<E>, undefined> {
  #ring: EventRing<E>;
  #cursor: number;
  #pending: Resolve<E>[] = [];
  #closing = false;
  #ended = false;
  #onEnd: (follower: Follower<E>) => void;
  #signal: AbortSignal | undefined;
  #onAbort = (): void => this.#end();

  constructor(
    ring: EventRing<E>,
    cursor: number,
    onEnd: (follower: Follower<E>) => void,
    signal: AbortSignal | undefined,
  ) {
    this.#ring = ring;
    this.#cursor = cursor;
    this.#onEnd = onEnd;
    this.#signal = signal;
    if (signal?.aborted) this.#end();
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Sequence number of the next event this follower wants: where to resume after it is gone. */
  get cursor(): number {
    return this.#cursor;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * The next event in order; calls may overlap and are answered in order.
   * Rejects with TOO_MANY_READERS beyond `PENDING_NEXT_MAX` outstanding calls.
   */
  next(): Promise<IteratorResult<Delivery<E>, undefined>> {
    if (this.#pending.length >= PENDING_NEXT_MAX) {
      const text = `more than ${PENDING_NEXT_MAX} next() calls outstanding on one follower`;
      return Promise.reject(new EventQueueError("TOO_MANY_READERS", text));
    }
    return new Promise((resolve) => {
      this.#pending.push(resolve);
      this.wake();
    });
  }

  /** Stops following; outstanding `next()` calls end. */
  return(): Promise<IteratorResult<Delivery<E>, undefined>> {
    this.#end();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Called by the queue after each push. */
  wake(): void {
    while (!this.#ended && this.#pending.length > 0) {
      const delivery = this.#ring.read(this.#cursor);
      if (delivery === undefined) break;
      this.#cursor = delivery.record.sequence + 1;
      this.#pending.shift()!({ done: false, value: delivery });
    }
    if (this.#closing && this.#cursor >= this.#ring.next) this.#end();
    if (this.#ended) this.#answerDone();
  }

  /** Called by the queue when nothing more will be pushed. */
  close(): void {
    this.#closing = true;
    this.wake();
  }

  #end(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#signal?.removeEventListener("abort", this.#onAbort);
      this.#onEnd(this);
    }
    this.#answerDone();
  }

  #answerDone(): void {
    for (const resolve of this.#pending.splice(0)) resolve({ done: true, value: undefined });
  }
}
