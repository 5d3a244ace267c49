import { checkInteger, EventQueueError } from "./errors.js";
import { Follower } from "./follower.js";
import { type Delivery, type EventRecord, EventRing } from "./ring.js";
import { startTimer } from "./timer.js";

/** Events a queue remembers unless told otherwise. */
export const DEFAULT_CAPACITY = 1024;
/** Waits, and separately followers, that one queue serves at the same time. */
export const READERS_MAX = 1024;

/** Settings of a queue; all may be left out. */
export interface EventQueueOptions {
  /** Events remembered, 1 to 2^20; when exceeded the oldest is overwritten. */
  readonly capacity?: number;
  /** Sequence number of the first event, 0 to 2^52; lets a restarted process go on counting. */
  readonly firstSequence?: number;
  /** Clock for `timeNs`; CLOCK_MONOTONIC by default. */
  readonly nowNs?: () => number;
}

/** Where `subscribe` starts, and what ends it from outside. */
export interface SubscribeOptions {
  /**
   * First event wanted. Events already overwritten are counted as `missed` with the first delivery.
   * Default: the next event to be pushed.
   */
  readonly fromSequence?: number;
  /** Ends the iteration when aborted. */
  readonly signal?: AbortSignal;
}

/** What a wait ended with. Only "event" took something out of the queue. */
export type WaitResult<E> =
  | ({ readonly kind: "event" } & Delivery<E>)
  /** The time was up (the kernel's ENOENT). */
  | { readonly kind: "timeout" }
  /** The abort signal fired (the kernel's EINTR). */
  | { readonly kind: "aborted" }
  /** The queue is closed and everything pushed before was taken (the kernel's ESRCH). */
  | { readonly kind: "closed" };

/** The writing end of a queue: what a part that only reports events asks for. */
export interface EventSink<E> {
  push(event: E): unknown;
}

interface Waiter<E> {
  finish(result: WaitResult<E>): void;
}

/**
 * A bounded queue of typed events with two kinds of readers.
 *
 * `wait` consumes: each event goes to exactly one waiter, waiters are served first come, first
 * served. `subscribe` follows: each follower sees all events, consumed or not. Both read the same
 * ring, so a reader may change from one to the other at any sequence number and lose nothing that
 * the ring still holds.
 */
export class EventQueue<E> implements EventSink<E> {
  #ring: EventRing<E>;
  #nowNs: () => number;
  #waitCursor: number;
  #waiters = new Set<Waiter<E>>();
  #followers = new Set<Follower<E>>();
  #closed = false;

  /** Throws EventQueueError ARGUMENT_INVALID for an option out of range. */
  constructor(options: EventQueueOptions = {}) {
    const firstSequence = options.firstSequence ?? 1;
    this.#ring = new EventRing(options.capacity ?? DEFAULT_CAPACITY, firstSequence);
    this.#waitCursor = firstSequence;
    this.#nowNs = options.nowNs ?? (() => Number(process.hrtime.bigint()));
  }

  /** Sequence number that the next event will get. */
  get nextSequence(): number {
    return this.#ring.next;
  }

  /** Sequence number of the oldest event still held; equals `nextSequence` while there is none. */
  get oldestSequence(): number {
    return this.#ring.oldest;
  }

  /** Events that no `wait` has taken yet and that are still held. */
  get pendingCount(): number {
    return this.#ring.next - Math.max(this.#waitCursor, this.#ring.oldest);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Appends an event and wakes its readers. Never blocks; the oldest event makes room.
   * Throws EventQueueError QUEUE_CLOSED after `close()`.
   */
  push(event: E): EventRecord<E> {
    if (this.#closed) {
      throw new EventQueueError("QUEUE_CLOSED", "the event queue is closed; nothing can be pushed");
    }
    const record = this.#ring.push(event, this.#nowNs());
    this.#serveWaiters();
    for (const follower of [...this.#followers]) follower.wake();
    return record;
  }

  /**
   * Takes the next event out of the queue, waiting for one if there is none.
   *
   * @param timeoutMs longest wait in real milliseconds, 0 or more; 0 only looks; undefined or
   *   Infinity waits without a limit.
   * @param signal ends the wait early; an aborted wait has taken no event.
   *
   * Rejects with ARGUMENT_INVALID for a bad timeout and TOO_MANY_READERS beyond `READERS_MAX` waits.
   */
  async wait(timeoutMs?: number, signal?: AbortSignal): Promise<WaitResult<E>> {
    const limitMs = timeoutMs ?? Number.POSITIVE_INFINITY;
    if (Number.isNaN(limitMs) || limitMs < 0) {
      const text = `timeoutMs must be 0 or more, not ${limitMs}`;
      throw new EventQueueError("ARGUMENT_INVALID", text);
    }
    if (signal?.aborted) return { kind: "aborted" };
    const ready = this.#waiters.size === 0 ? this.#take() : undefined;
    if (ready !== undefined) return ready;
    if (this.#closed) return { kind: "closed" };
    if (limitMs === 0) return { kind: "timeout" };
    if (this.#waiters.size >= READERS_MAX) {
      const text = `${READERS_MAX} waits are outstanding already`;
      throw new EventQueueError("TOO_MANY_READERS", text);
    }
    return this.#enqueue(limitMs, signal);
  }

  /**
   * Follows the queue from a point on; the position is taken now, not at the first `next()`.
   *
   * Throws ARGUMENT_INVALID, SEQUENCE_UNKNOWN when `fromSequence` lies beyond the next event (it
   * belongs to another queue or an earlier run), TOO_MANY_READERS beyond `READERS_MAX` followers.
   */
  subscribe(options: SubscribeOptions = {}): Follower<E> {
    const from = options.fromSequence ?? this.#ring.next;
    checkInteger("fromSequence", from, 0, 2 ** 53 - 1);
    if (from > this.#ring.next) {
      const text = `no event ${from} is known; the next one will be ${this.#ring.next}`;
      throw new EventQueueError("SEQUENCE_UNKNOWN", text);
    }
    if (this.#followers.size >= READERS_MAX) {
      const text = `${READERS_MAX} followers are subscribed already`;
      throw new EventQueueError("TOO_MANY_READERS", text);
    }
    const onEnd = (ended: Follower<E>): void => void this.#followers.delete(ended);
    const follower = new Follower(this.#ring, from, onEnd, options.signal);
    if (options.signal?.aborted) return follower;
    if (this.#closed) follower.close();
    else this.#followers.add(follower);
    return follower;
  }

  /**
   * Ends the queue: all waiters wake at once with "closed", nothing more can be pushed. What was
   * pushed before can still be read. May be called again.
   */
  close(): void {
    this.#closed = true;
    for (const waiter of [...this.#waiters]) waiter.finish({ kind: "closed" });
    for (const follower of [...this.#followers]) follower.close();
    this.#followers.clear();
  }

  #take(): WaitResult<E> | undefined {
    const delivery = this.#ring.read(this.#waitCursor);
    if (delivery === undefined) return undefined;
    this.#waitCursor = delivery.record.sequence + 1;
    return { kind: "event", record: delivery.record, missed: delivery.missed };
  }

  #serveWaiters(): void {
    for (const waiter of this.#waiters) {
      const result = this.#take();
      if (result === undefined) return;
      waiter.finish(result);
    }
  }

  #enqueue(limitMs: number, signal: AbortSignal | undefined): Promise<WaitResult<E>> {
    return new Promise((resolve) => {
      const waiter: Waiter<E> = {
        finish: (result) => {
          this.#waiters.delete(waiter);
          cancelTimer?.();
          signal?.removeEventListener("abort", onAbort);
          resolve(result);
        },
      };
      const onAbort = (): void => waiter.finish({ kind: "aborted" });
      const cancelTimer = Number.isFinite(limitMs)
        ? startTimer(limitMs, () => waiter.finish({ kind: "timeout" }))
        : undefined;
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }
}
