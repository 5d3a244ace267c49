import { Consumer, type Waiter, type WaitResult } from "./consumer.js";
import { checkInteger, EventQueueError } from "./errors.js";
import { Follower } from "./follower.js";
import { type EventRecord, EventRing } from "./ring.js";
import { startTimer } from "./timer.js";

/** Default number of events that a queue remembers. */
export const DEFAULT_CAPACITY = 1024;
/** Waits, and separately followers, that one queue serves at the same time. */
export const READERS_MAX = 1024;
/** Most reader names of one queue, not counting the unnamed reader. */
export const READER_NAMES_MAX = 64;
/** Name of the reader for waits without a name. */
export const DEFAULT_READER = "";

/** Settings of a queue; all may be left out. */
export interface EventQueueOptions {
  /** Events remembered, 1 to 2^20; when exceeded the oldest is overwritten. */
  readonly capacity?: number;
  /** Sequence number of the first event, 0 to 2^52; lets a restarted process continue counting. */
  readonly firstSequence?: number;
  /** Clock for `timeNs`; CLOCK_MONOTONIC by default. */
  readonly nowNs?: () => number;
  /** Positions of an earlier process's readers: `cursors` of its queue. */
  readonly cursors?: Readonly<Record<string, number>>;
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

/** The writing end of a queue, for code that only reports events. */
export interface EventSink<E> {
  push(event: E): unknown;
}

/**
 * A bounded queue of typed events with two kinds of readers.
 *
 * `wait` consumes: of all waits under one reader's name each event goes to exactly one, first come,
 * first served. Readers with different names take nothing from each other. `subscribe` follows: each
 * follower sees all events, consumed or not. All read the same ring, so a reader may change from one
 * to the other at any sequence number and lose nothing that the ring still holds.
 */
export class EventQueue<E> implements EventSink<E> {
  #ring: EventRing<E>;
  #nowNs: () => number;
  #consumers = new Map<string, Consumer<E>>();
  #followers = new Set<Follower<E>>();
  #closed = false;

  /** Throws EventQueueError ARGUMENT_INVALID for an option out of range. */
  constructor(options: EventQueueOptions = {}) {
    const firstSequence = options.firstSequence ?? 1;
    this.#ring = new EventRing(options.capacity ?? DEFAULT_CAPACITY, firstSequence);
    for (const [reader, cursor] of Object.entries(options.cursors ?? {})) {
      checkInteger(`the cursor of reader "${reader}"`, cursor, 0, 2 ** 53 - 1);
      this.#consumers.set(reader, new Consumer(this.#ring, cursor));
    }
    if (!this.#consumers.has(DEFAULT_READER)) {
      this.#consumers.set(DEFAULT_READER, new Consumer(this.#ring, firstSequence));
    }
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

  /** Events that this reader has not taken yet and that are still held. */
  pendingCount(reader: string = DEFAULT_READER): number {
    const known = this.#consumers.get(reader);
    return known?.pendingCount ?? this.#ring.next - this.#ring.oldest;
  }

  /** The next event of each reader, from which a restarted process can continue. */
  get cursors(): Record<string, number> {
    return Object.fromEntries([...this.#consumers].map(([name, { cursor }]) => [name, cursor]));
  }

  /** Sequence number of the oldest event held that some reader has not taken. */
  get unreadSequence(): number {
    const least = Math.min(...[...this.#consumers.values()].map(({ cursor }) => cursor));
    return Math.min(Math.max(least, this.#ring.oldest), this.#ring.next);
  }

  /** The records from `fromSequence` on that are held, taken or not, the oldest first. */
  held(fromSequence: number = this.#ring.oldest): EventRecord<E>[] {
    const records: EventRecord<E>[] = [];
    for (let at = fromSequence; ; ) {
      const record = this.#ring.read(at)?.record;
      if (record === undefined) return records;
      records.push(record);
      at = record.sequence + 1;
    }
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
    for (const consumer of this.#consumers.values()) consumer.serve();
    for (const follower of [...this.#followers]) follower.wake();
    return record;
  }

  /**
   * Takes the next event out of the queue, waiting for one if there is none.
   *
   * @param timeoutMs longest wait in real milliseconds, 0 or more; 0 only looks; undefined or
   *   Infinity waits without a limit.
   * @param signal ends the wait early; an aborted wait has taken no event.
   * @param reader whose events these are. A new name begins with the oldest event that is held.
   *
   * Rejects with ARGUMENT_INVALID for a bad timeout and TOO_MANY_READERS beyond `READERS_MAX` waits
   * under one name, or beyond `READER_NAMES_MAX` names.
   */
  async wait(
    timeoutMs?: number,
    signal?: AbortSignal,
    reader: string = DEFAULT_READER,
  ): Promise<WaitResult<E>> {
    const limitMs = timeoutMs ?? Number.POSITIVE_INFINITY;
    if (Number.isNaN(limitMs) || limitMs < 0) {
      const text = `timeoutMs must be 0 or more, not ${limitMs}`;
      throw new EventQueueError("ARGUMENT_INVALID", text);
    }
    if (signal?.aborted) return { kind: "aborted" };
    const consumer = this.#consumer(reader);
    const ready = consumer.waiters.size === 0 ? consumer.pop() : undefined;
    if (ready !== undefined) return ready;
    if (this.#closed) return { kind: "closed" };
    if (limitMs === 0) return { kind: "timeout" };
    if (consumer.waiters.size >= READERS_MAX) {
      const text = `${READERS_MAX} waits are outstanding already`;
      throw new EventQueueError("TOO_MANY_READERS", text);
    }
    return this.#enqueue(consumer, limitMs, signal);
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
    for (const consumer of this.#consumers.values()) consumer.close();
    for (const follower of [...this.#followers]) follower.close();
    this.#followers.clear();
  }

  #consumer(reader: string): Consumer<E> {
    const known = this.#consumers.get(reader);
    if (known !== undefined) return known;
    // The unnamed reader always exists, and is not counted.
    if (this.#consumers.size > READER_NAMES_MAX) {
      const text = `${READER_NAMES_MAX} readers have names already`;
      throw new EventQueueError("TOO_MANY_READERS", text);
    }
    const consumer = new Consumer(this.#ring, this.#ring.oldest);
    this.#consumers.set(reader, consumer);
    return consumer;
  }

  #enqueue(
    { waiters }: Consumer<E>,
    limitMs: number,
    signal: AbortSignal | undefined,
  ): Promise<WaitResult<E>> {
    return new Promise((resolve) => {
      const waiter: Waiter<E> = {
        finish: (result) => {
          waiters.delete(waiter);
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
      waiters.add(waiter);
    });
  }
}
