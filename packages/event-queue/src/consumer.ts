import type { Delivery, EventRing } from "./ring.js";

/** How a wait ended. Only "event" took something out of the queue. */
export type WaitResult<E> =
  | ({ readonly kind: "event" } & Delivery<E>)
  /** The time was up (the kernel's ENOENT). */
  | { readonly kind: "timeout" }
  /** The abort signal fired (the kernel's EINTR). */
  | { readonly kind: "aborted" }
  /** The queue is closed and everything pushed before was taken (the kernel's ESRCH). */
  | { readonly kind: "closed" };

export interface Waiter<E> {
  finish(result: WaitResult<E>): void;
}

/** A named reader that takes events: its position in the ring, and the waits under its name. */
export class Consumer<E> {
  readonly waiters: Set<Waiter<E>> = new Set();
  readonly #ring: EventRing<E>;
  #cursor: number;

  constructor(ring: EventRing<E>, cursor: number) {
    this.#ring = ring;
    this.#cursor = cursor;
  }

  /** Sequence number of the next event that it wants. */
  get cursor(): number {
    return this.#cursor;
  }

  /** Events that it has not taken and that are still held. */
  get pendingCount(): number {
    return this.#ring.next - Math.max(this.#cursor, this.#ring.oldest);
  }

  /** The next event, if there is one. */
  pop(): WaitResult<E> | undefined {
    const delivery = this.#ring.read(this.#cursor);
    if (delivery === undefined) return undefined;
    this.#cursor = delivery.record.sequence + 1;
    return { kind: "event", record: delivery.record, missed: delivery.missed };
  }

  /** Answers the waits, in order, as far as there are events. */
  serve(): void {
    for (const waiter of this.waiters) {
      const result = this.pop();
      if (result === undefined) return;
      waiter.finish(result);
    }
  }

  close(): void {
    for (const waiter of [...this.waiters]) waiter.finish({ kind: "closed" });
  }
}
