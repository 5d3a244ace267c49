/**
 * The part of status whose changes are events. It is stored in the state directory, so that a daemon knows the state
 * of the one before it.
 */
import type { GenerationReason, StatusResponse } from "@blksnap/api";

/** Counters of events that may come by the thousand: reported in sums. */
export const COUNTED = ["writes_refused", "writes_blocked", "late_io"] as const;
export type Counted = (typeof COUNTED)[number];

/** The reported part of a counter. */
export interface Reported {
  /** Negative by the unreported events from before the counter began at 0 again. */
  readonly count: number;
  readonly atMs: number;
  /** Last known value: the snapshot may be gone at the next poll. */
  readonly seen: number;
}

export interface DeviceFacts {
  readonly front: string;
  readonly isLive: boolean;
  readonly kind: "front" | "live";
  readonly node: string | null;
  readonly isLost: boolean;
  readonly lostWhy: string | null;
  readonly persistence: "off" | "on" | "failed";
  readonly persistenceWhy: string | null;
  readonly generation: string;
  readonly reason: GenerationReason;
  readonly capacityBytes: number;
  readonly originalBytes: number;
  /** Why these two differ. Daemons before did not know of it. */
  readonly sizeWhy?: string | null;
  /** Failed requests of its front. Daemons before did not know of them. */
  readonly errors?: Reported;
}

export interface SnapshotFacts {
  readonly devices: readonly string[];
  readonly isTaken: boolean;
  readonly isPersistent: boolean;
  /** An earlier daemon took it. */
  readonly isResumed: boolean;
  readonly stallUs: number | null;
  /** By device. */
  readonly counters: Readonly<Record<string, Readonly<Record<Counted, Reported>>>>;
}

export interface UntrackedFacts {
  readonly node: string;
  readonly why: string;
  readonly isGivenUp: boolean;
}

export interface Facts {
  /** Identifies the daemon that knew them; empty if there was none. A pid may be reused. */
  readonly life: string;
  readonly devices: Readonly<Record<string, DeviceFacts>>;
  /** Fronts that are not served yet, by device. */
  readonly waiting: Readonly<Record<string, { readonly front: string; readonly why: string }>>;
  /** Volumes that are to be attached again, by device, with the reason. Earlier daemons did not know of these. */
  readonly untracked?: Readonly<Record<string, UntrackedFacts>>;
  readonly snapshots: Readonly<Record<string, SnapshotFacts>>;
  /** Numbers of stalled reactors, and their devices. */
  readonly stalled: Readonly<Record<string, readonly string[]>>;
  readonly mistakes: readonly string[];
  readonly missing: Readonly<Record<string, { readonly from: string; readonly why: string }>>;
}

export const NO_FACTS: Facts = {
  life: "",
  devices: {},
  waiting: {},
  snapshots: {},
  stalled: {},
  mistakes: [],
  missing: {},
};

type Tracker = StatusResponse["trackers"][number];
type Snapshot = StatusResponse["snapshots"][number];

function unreported(count: number): Reported {
  return { count, atMs: 0, seen: count };
}

function deviceFacts(tracker: Tracker): DeviceFacts {
  const { splice, persistence, cbt } = tracker;
  return {
    front: tracker.front,
    isLive: tracker.front_live,
    kind: tracker.attach_kind,
    node: splice?.node ?? null,
    isLost: splice?.state === "lost",
    lostWhy: splice?.why ?? null,
    persistence: persistence.state,
    persistenceWhy: persistence.why,
    generation: cbt.generation_id,
    reason: cbt.generation_reason,
    capacityBytes: tracker.capacity_bytes,
    originalBytes: tracker.original_capacity_bytes,
    sizeWhy: tracker.capacity_why,
    errors: unreported(tracker.io.errors),
  };
}

function snapshotFacts(snapshot: Snapshot): SnapshotFacts {
  const counters = snapshot.devices.map((member) => [
    member.device,
    {
      writes_refused: unreported(member.refused_writes),
      writes_blocked: unreported(member.blocked_writes),
      late_io: unreported(member.late_io),
    },
  ]);
  return {
    devices: snapshot.devices.map(({ device }) => device),
    isTaken: snapshot.taken,
    isPersistent: snapshot.persistent,
    isResumed: snapshot.resumed,
    stallUs: snapshot.stall_us,
    counters: Object.fromEntries(counters),
  };
}

export function factsOf({ daemon, ...status }: StatusResponse, life: string): Facts {
  const { trackers, waiting, untracked, snapshots, reactors } = status;
  const { mistakes, missing } = daemon.configuration;
  const on = (index: number) =>
    trackers.filter(({ reactor }) => reactor === index).map(({ device }) => device);
  const stalled = reactors.filter(({ stalled_ms }) => stalled_ms > 0);
  const given = missing.filter(({ waited_for }) => !waited_for);
  return {
    life,
    devices: Object.fromEntries(trackers.map((one) => [one.device, deviceFacts(one)])),
    waiting: Object.fromEntries(waiting.map(({ device, front, why }) => [device, { front, why }])),
    untracked: Object.fromEntries(
      // The first attempt is still running, and rarely fails.
      untracked.flatMap(({ device, node, why, given_up: isGivenUp }) =>
        why === null ? [] : [[device, { node, why, isGivenUp }]],
      ),
    ),
    snapshots: Object.fromEntries(snapshots.map((one) => [one.id, snapshotFacts(one)])),
    stalled: Object.fromEntries(stalled.map(({ index }) => [index, on(index)])),
    mistakes,
    missing: Object.fromEntries(given.map(({ device, from, why }) => [device, { from, why }])),
  };
}

/** Whether another version may have written it. */
export function areFacts(value: unknown): value is Facts {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(NO_FACTS).every(([name, empty]) => {
    const found = (value as Record<string, unknown>)[name];
    return (
      typeof found === typeof empty &&
      found !== null &&
      Array.isArray(found) === Array.isArray(empty)
    );
  });
}
