import { constants } from "node:os";
import type { SnapshotEvent } from "@blksnap/api";
import type { DiffStorageEvent } from "@blksnap/diff-storage";
import type { Delivery, EventRecord } from "@blksnap/event-queue";

/** A device's image lost its first block. */
export interface CorruptedEvent {
  readonly type: "corrupted";
  readonly device: string;
  readonly major: number;
  readonly minor: number;
  /** Positive. */
  readonly errno: number;
}

interface WithWallTime {
  readonly wallTime: string;
}

/** What a snapshot's event queue holds. */
export type QueuedEvent = WithWallTime & (CorruptedEvent | (DiffStorageEvent & UsedBytes));

interface UsedBytes {
  readonly usedBytes: number;
  readonly limitBytes: number;
}

/** The event as the API tells it; undefined for those that only the log is told. */
export function apiEvent(record: EventRecord<QueuedEvent>): SnapshotEvent | undefined {
  const { event } = record;
  const common = {
    sequence: record.sequence,
    time_ns: record.timeNs,
    wall_time: event.wallTime,
  };
  switch (event.type) {
    case "corrupted": {
      const { device, major, minor, errno } = event;
      return { ...common, event: "corrupted", device, major, minor, error_code: errno };
    }
    case "no_space":
      return {
        ...common,
        event: "no_space",
        requested_nr_sect: event.requestedSectors,
        limit_bytes: event.limitBytes,
        used_bytes: event.usedBytes,
      };
    case "low_free_space":
      return {
        ...common,
        event: "low_free_space",
        requested_nr_sect: event.requestedSectors,
        free_bytes: event.freeBytes,
        error_code: event.reason === "growth_failed" ? constants.errno.ENOSPC : 0,
      };
    default:
      return undefined;
  }
}

/** The event that tells a reader what it missed before this delivery. */
export function missedEvent(delivery: Delivery<QueuedEvent>): SnapshotEvent {
  return {
    sequence: Math.max(1, delivery.record.sequence - 1),
    time_ns: delivery.record.timeNs,
    wall_time: delivery.record.event.wallTime,
    event: "missed",
    count: delivery.missed,
  };
}

/** Whether users are told of it; the others go to the log. */
export function isUserEvent(event: DiffStorageEvent): boolean {
  return event.type === "no_space" || event.type === "low_free_space";
}
