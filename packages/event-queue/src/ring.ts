import { checkInteger } from "./errors.js";

/** An event with its place in the queue's order and the time it was pushed. */
export interface EventRecord<E> {
  /** Consecutive number; no number is skipped or used twice within a queue. */
  readonly sequence: number;
  /**
   * CLOCK_MONOTONIC in nanoseconds when the event was pushed.
   *
   * A number, so that it survives JSON and can be subtracted. It is exact for the first 104 days of
   * uptime and rounded to 2 or 4 ns for years after; order comes from `sequence`.
   */
  readonly timeNs: number;
  readonly event: E;
}

/** A record handed to a reader, with how many records the reader lost just before it. */
export interface Delivery<E> {
  readonly record: EventRecord<E>;
  /** Events overwritten since this reader's last delivery; 0 for a reader that keeps up. */
  readonly missed: number;
}

/**
 * The newest `capacity` records, found by sequence number.
 *
 * ```text
 *            oldest                          next
 *   lost ──────┤ r ─ r ─ r ─ r ─ r ─ r ─ r ────┤ not pushed yet
 *              slot of record s = s mod capacity
 * ```
 *
 * A reader is only a cursor (the sequence number it wants next), so readers cost nothing while they
 * are slow, and the memory held is bounded by `capacity` whatever they do.
 */
export class EventRing<E> {
  readonly capacity: number;
  #slots: (EventRecord<E> | undefined)[];
  #oldest: number;
  #next: number;

  /** `capacity` from 1 to 2^20 records; `firstSequence` is the number of the first record. */
  constructor(capacity: number, firstSequence: number) {
    checkInteger("capacity", capacity, 1, 2 ** 20);
    checkInteger("firstSequence", firstSequence, 0, 2 ** 52);
    this.capacity = capacity;
    this.#slots = new Array(capacity);
    this.#oldest = firstSequence;
    this.#next = firstSequence;
  }

  /** Sequence number of the oldest record still held; equals `next` while there is none. */
  get oldest(): number {
    return this.#oldest;
  }

  /** Sequence number that the next pushed event will get. */
  get next(): number {
    return this.#next;
  }

  push(event: E, timeNs: number): EventRecord<E> {
    const record = { sequence: this.#next, timeNs, event };
    this.#slots[record.sequence % this.capacity] = record;
    this.#next += 1;
    if (this.#next - this.#oldest > this.capacity) this.#oldest += 1;
    return record;
  }

  /**
   * The first record at or after `cursor`, or undefined while there is none. `missed` counts the
   * overwritten records between the cursor and that record.
   */
  read(cursor: number): Delivery<E> | undefined {
    if (cursor >= this.#next) return undefined;
    const sequence = Math.max(cursor, this.#oldest);
    const record = this.#slots[sequence % this.capacity];
    if (record?.sequence !== sequence) throw new Error("event ring: slot holds another record");
    return { record, missed: sequence - cursor };
  }
}
