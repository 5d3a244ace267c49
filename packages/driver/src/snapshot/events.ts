import { constants } from "node:os";
import { type EventKind, type EventOf, SECTOR_SIZE_BYTES, type SnapshotEvent } from "@blksnap/api";
import type { DiffStorageEvent } from "@blksnap/diff-storage";
import { type Delivery, EventQueue, type EventRecord, type Follower } from "@blksnap/event-queue";
import { deviceNumber, parseDevice } from "@blksnap/linux-block";
import type { Tracker } from "../tracker/tracker.js";

/** A device's image lost its first block. */
export interface CorruptedEvent {
  readonly type: "corrupted";
  readonly device: string;
  readonly major: number;
  readonly minor: number;
  /** Positive. */
  readonly errno: number;
}

/** Names the device as users know it: for a live attach by its node. */
export function corrupted(
  { device, deviceNumber: own, backing }: Pick<Tracker, "device" | "deviceNumber" | "backing">,
  errno: number,
): CorruptedEvent {
  // A file has no number: uses that of the device below.
  const number = parseDevice(own) ?? deviceNumber(backing.deviceNumber);
  return { type: "corrupted", device, ...number, errno };
}

/** A store does not answer a device in time, or answers again. */
export interface StoreEvent<Kind extends "store_hung" | "store_answered"> {
  readonly type: Kind;
  readonly device: string;
  readonly store: string;
}

type StorageEvent = DiffStorageEvent & { readonly usedBytes: number; readonly limitBytes: number };
type NewEvent =
  | CorruptedEvent
  | StoreEvent<"store_hung">
  | StoreEvent<"store_answered">
  | StorageEvent;

/** Made only for a reader that has missed events; never in a queue. */
type MadeForReaders = "missed";
type Stamp = "sequence" | "time_us" | "wall_time" | "event";
type Source<Kind extends string> = Extract<NewEvent, { readonly type: Kind }>;
type Translation<Kind extends string> = Kind extends EventKind
  ? [Source<Kind>] extends [never]
    ? "NewEvent lacks its source"
    : (event: Source<Kind>) => Omit<EventOf<Kind>, Stamp>
  : null;

/** The API's form of each kind of event; null for those that only appear in the log. */
const TRANSLATIONS: {
  readonly [Kind in NewEvent["type"] | Exclude<EventKind, MadeForReaders>]: Translation<Kind>;
} = {
  corrupted: ({ device, major, minor, errno }) => ({ device, major, minor, errno }),
  store_hung: ({ store, device }) => ({ store, device }),
  store_answered: ({ store, device }) => ({ store, device }),
  no_space: ({ requestedSectors, limitBytes, usedBytes }) => ({
    allocated_bytes: requestedSectors * SECTOR_SIZE_BYTES,
    limit_bytes: limitBytes,
    used_bytes: usedBytes,
  }),
  low_free_space: ({ requestedSectors, freeBytes, reason }) => ({
    wanted_bytes: requestedSectors * SECTOR_SIZE_BYTES,
    free_bytes: freeBytes,
    errno: reason === "growth_failed" ? constants.errno.ENOSPC : null,
  }),
  growth_failed: null,
  growth_late: null,
  growth_recovered: null,
  punch_failed: null,
};

/** An event in a snapshot's queue. */
export type QueuedEvent = NewEvent & { readonly wallTime: string };

/** Events that an earlier daemon has left. */
export interface EventsRecord {
  /** Events that some reader has not taken. */
  readonly events: readonly EventRecord<QueuedEvent>[];
  /** Number of the next event. */
  readonly nextEvent: number;
  /** The next event of each reader, by name; absent in records of older daemons. */
  readonly readers?: Readonly<Record<string, number>>;
}

/** The events of one snapshot: those that a reader has not taken yet survive the daemon. */
export class SnapshotEvents {
  readonly #queue: EventQueue<QueuedEvent>;
  readonly #save: () => void;

  /** @param save called after each change of `record` */
  constructor({ events, nextEvent, readers }: EventsRecord, save: () => void) {
    let restoredNs: number | undefined;
    this.#queue = new EventQueue<QueuedEvent>({
      firstSequence: events[0]?.sequence ?? nextEvent,
      nowNs: () => restoredNs ?? Number(process.hrtime.bigint()),
      ...(readers === undefined ? {} : { cursors: readers }),
    });
    for (const { timeNs, event } of events) {
      restoredNs = timeNs;
      this.#queue.push(event);
    }
    restoredNs = undefined;
    this.#save = save;
  }

  get record(): Required<EventsRecord> {
    const { nextSequence: nextEvent, cursors: readers, unreadSequence } = this.#queue;
    return { events: this.#queue.held(unreadSequence), nextEvent, readers };
  }

  get isClosed(): boolean {
    return this.#queue.closed;
  }

  /** Number of events that the unnamed reader has not taken. */
  get pendingCount(): number {
    return this.#queue.pendingCount();
  }

  /** Appends an event; drops it if it is only for the log, or the queue is closed. */
  push(event: NewEvent): void {
    if (TRANSLATIONS[event.type] === null || this.#queue.closed) return;
    this.#queue.push({ ...event, wallTime: new Date().toISOString() });
    this.#save();
  }

  /**
   * Takes the oldest event that this reader has not taken, and waits for one if there is none.
   * @returns "closed" if the snapshot is gone, undefined on time-out or abort
   */
  async wait(
    timeoutMs: number,
    signal: AbortSignal,
    reader?: string,
  ): Promise<SnapshotEvent | "closed" | undefined> {
    const result = await this.#queue.wait(timeoutMs, signal, reader);
    if (result.kind === "closed") return "closed";
    if (result.kind !== "event") return undefined;
    this.#save();
    return apiEvent(result.record);
  }

  /** All events in the queue, taken or not, the oldest first. */
  list(): SnapshotEvent[] {
    return this.#queue.held().map(apiEvent);
  }

  /** Follows from an event on; reports events that are no longer kept as missed. */
  async *follow(from: number, signal: AbortSignal): AsyncGenerator<SnapshotEvent> {
    for await (const delivery of this.#subscribe(from, signal)) {
      if (delivery.missed > 0) yield missedEvent(delivery);
      yield apiEvent(delivery.record);
    }
  }

  /** Wakes all waiting readers. */
  close(): void {
    this.#queue.close();
  }

  #subscribe(from: number, signal: AbortSignal): Follower<QueuedEvent> {
    const { nextSequence, oldestSequence } = this.#queue;
    const fromSequence = Math.min(from === 0 ? oldestSequence : from, nextSequence);
    return this.#queue.subscribe({ fromSequence, signal });
  }
}

function microseconds({ timeNs }: EventRecord<QueuedEvent>): number {
  return Math.floor(timeNs / 1000);
}

/** The API's form of the event. */
function apiEvent(record: EventRecord<QueuedEvent>): SnapshotEvent {
  const { event } = record;
  const translate = TRANSLATIONS[event.type] as ((of: NewEvent) => object) | null | undefined;
  if (translate == null) throw new Error(`event ${event.type} is not for users`);
  const stamp = {
    sequence: record.sequence,
    time_us: microseconds(record),
    wall_time: event.wallTime,
    event: event.type,
  };
  return { ...stamp, ...translate(event) } as SnapshotEvent;
}

/** An event about what a reader missed before this delivery. */
function missedEvent(delivery: Delivery<QueuedEvent>): SnapshotEvent {
  return {
    sequence: Math.max(1, delivery.record.sequence - 1),
    time_us: microseconds(delivery.record),
    wall_time: delivery.record.event.wallTime,
    event: "missed",
    count: delivery.missed,
  };
}
