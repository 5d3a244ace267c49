/** Derives events from two states, in an order that a reader understands. */
import type { DaemonEvent } from "@blksnap/api";
import {
  COUNTED,
  type Counted,
  type DeviceFacts,
  type Facts,
  type Reported,
  type SnapshotFacts,
} from "./facts.js";

type Stamp = "sequence" | "log" | "wall_time" | "severity";
type WithoutStamp<E> = E extends DaemonEvent ? Omit<E, Stamp> : never;
/** An event as its source provides it. */
export type NewDaemonEvent = WithoutStamp<DaemonEvent>;

/** A growing count is reported once a minute: otherwise one full store displaces all other events from the log. */
export const COUNT_INTERVAL_MS = 60_000;

type Pairs<Value> = readonly (readonly [name: string, value: Value])[];
type Table<Value> = Readonly<Record<string, Value>>;

/** Entries of one table that are missing in the other. */
function without<Value>(these: Table<Value>, others: Table<unknown>): Pairs<Value> {
  return Object.entries(these).filter(([name]) => !Object.hasOwn(others, name));
}

function generationOf({ generation, reason }: DeviceFacts) {
  return { generation_id: generation, generation_reason: reason };
}

function* changesOf(
  device: string,
  before: DeviceFacts,
  now: DeviceFacts,
): Generator<NewDaemonEvent> {
  const { front } = now;
  const its = { device, front };
  if (now.capacityBytes > before.capacityBytes) {
    const { capacityBytes: capacity_bytes } = now;
    const { capacityBytes: capacity_before_bytes } = before;
    yield { event: "front_grown", ...its, capacity_bytes, capacity_before_bytes };
  }
  if (now.generation !== before.generation) {
    yield { event: "generation_began", ...its, ...generationOf(now), why: now.persistenceWhy };
  }
  if (now.persistence === "failed" && before.persistence !== "failed") {
    yield { event: "persistence_failed", ...its, why: now.persistenceWhy };
  }
  if (before.isLive && !now.isLive) yield { event: "front_ended", ...its };
  if (now.isLost && !before.isLost) {
    yield { event: "splice_lost", ...its, node: now.node ?? device, why: now.lostWhy };
  }
  const { capacityBytes: capacity_bytes, originalBytes: original_capacity_bytes } = now;
  const { sizeWhy: why = null } = now;
  const isNews = original_capacity_bytes !== before.originalBytes || why !== before.sizeWhy;
  if (why !== null && isNews) {
    yield { event: "capacity_changed", ...its, capacity_bytes, original_capacity_bytes, why };
  }
}

/** The state right after an attach without problems. */
function begun(now: DeviceFacts): DeviceFacts {
  const well = {
    isLive: true,
    isLost: false,
    persistence: "off",
    originalBytes: now.capacityBytes,
    sizeWhy: null,
  };
  return { ...now, ...well } as DeviceFacts;
}

function* deviceEvents(before: Facts, now: Facts): Generator<NewDaemonEvent> {
  const came = without(now.devices, before.devices);
  const went = without(before.devices, now.devices);
  const renamed = new Set<string>();
  const isNext = now.life !== before.life;
  for (const [device, facts] of came) {
    const { front, kind, generation } = facts;
    const earlier = went.find(([, one]) => one.front === front && one.generation === generation);
    if (earlier !== undefined) {
      renamed.add(earlier[0]);
      yield { event: "renamed", device, front, name_before: earlier[0] };
      yield* changesOf(device, earlier[1], facts);
      continue;
    }
    if (Object.hasOwn(before.waiting, device)) yield { event: "resumed", device, front };
    else {
      const persistent = facts.persistence === "on";
      const its = { device, front, attach_kind: kind, persistent };
      yield { event: "attached", ...its, ...generationOf(facts) };
    }
    yield* changesOf(device, begun(facts), facts);
  }
  for (const [device, facts] of Object.entries(now.devices)) {
    const earlier = before.devices[device];
    if (earlier === undefined) continue;
    if (isNext) yield { event: "resumed", device, front: facts.front };
    yield* changesOf(device, earlier, facts);
  }
  for (const [device, { front, why }] of Object.entries(now.waiting)) {
    if (before.waiting[device]?.why === why) continue;
    yield { event: "front_waiting", device, front, why };
  }
  for (const [device, { node, why, isGivenUp }] of Object.entries(now.untracked ?? {})) {
    if (before.untracked?.[device]?.why === why) continue;
    yield { event: "untracked", device, node, why, given_up: isGivenUp };
  }
  const gone = [...went, ...without(before.waiting, now.waiting)];
  for (const [device, { front }] of gone) {
    const isThere = Object.hasOwn(now.devices, device) || Object.hasOwn(now.waiting, device);
    if (!isThere && !renamed.has(device)) yield { event: "detached", device, front };
  }
}

/** For a snapshot that ends: what was counted since the last report. */
function* unreportedEvents(id: string, { counters }: SnapshotFacts): Generator<NewDaemonEvent> {
  for (const [device, its] of Object.entries(counters)) {
    for (const event of COUNTED) {
      const count = its[event].seen - its[event].count;
      if (count > 0) yield { event, id, device, count };
    }
  }
}

function* snapshotEvents(before: Facts, now: Facts): Generator<NewDaemonEvent> {
  for (const [id, snapshot] of without(before.snapshots, now.snapshots)) {
    const event = before.life === now.life ? "snapshot_destroyed" : "snapshot_lost";
    yield* unreportedEvents(id, snapshot);
    yield { event, id, devices: [...snapshot.devices] };
  }
  for (const [id, snapshot] of Object.entries(now.snapshots)) {
    const { isTaken, isPersistent, isResumed, stallUs } = snapshot;
    const earlier = before.snapshots[id];
    const devices = [...snapshot.devices];
    const isOld = earlier === undefined ? isResumed : before.life !== now.life;
    if (isOld) yield { event: "snapshot_resumed", id, devices };
    else if (earlier === undefined) yield { event: "snapshot_created", id, devices };
    if (isTaken && !isResumed && earlier?.isTaken !== true) {
      yield { event: "snapshot_taken", id, devices, stall_us: stallUs };
    }
    if (earlier?.isPersistent === true && !isPersistent) {
      yield { event: "snapshot_not_persistent", id };
    }
  }
}

const NEVER: Reported = { count: 0, atMs: 0, seen: 0 };

/** The reported part of a counter. The next daemon's counter may begin at 0. */
function reportedOf(
  before: Facts,
  now: Facts,
  id: string,
  device: string,
  kind: Counted,
): Reported {
  const reported = before.snapshots[id]?.counters[device]?.[kind] ?? NEVER;
  const count = now.snapshots[id]?.counters[device]?.[kind].count ?? 0;
  if (before.life === now.life || count >= reported.seen) return reported;
  return { ...reported, count: reported.count - reported.seen, seen: 0 };
}

/** As reportedOf(), of failed requests of a front. Each daemon's counter begins at 0. */
function reportedErrors(before: Facts, now: Facts, device: string): Reported {
  return (before.life === now.life ? before.devices[device]?.errors : undefined) ?? NEVER;
}

/** Sums what was counted since the last report. */
function* countEvents(before: Facts, now: Facts, nowMs: number): Generator<NewDaemonEvent> {
  for (const [device, { front, errors = NEVER }] of Object.entries(now.devices)) {
    const reported = reportedErrors(before, now, device);
    const count = errors.count - reported.count;
    if (isDue(count, reported, nowMs)) yield { event: "front_errors", device, front, count };
  }
  for (const [id, snapshot] of Object.entries(now.snapshots)) {
    for (const [device, counters] of Object.entries(snapshot.counters)) {
      for (const event of COUNTED) {
        const reported = reportedOf(before, now, id, device, event);
        const count = counters[event].count - reported.count;
        if (isDue(count, reported, nowMs)) yield { event, id, device, count };
      }
    }
  }
}

function isDue(count: number, { atMs }: Reported, nowMs: number): boolean {
  return count > 0 && (atMs === 0 || nowMs - atMs >= COUNT_INTERVAL_MS);
}

function* healthEvents(before: Facts, now: Facts): Generator<NewDaemonEvent> {
  for (const [reactor, devices] of without(now.stalled, before.stalled)) {
    yield { event: "reactor_stalled", reactor: Number(reactor), devices: [...devices] };
  }
  for (const [reactor] of without(before.stalled, now.stalled)) {
    // Another daemon has other threads.
    if (before.life === now.life) yield { event: "reactor_turns", reactor: Number(reactor) };
  }
  const { mistakes } = now;
  if (mistakes.length > 0 && mistakes.join("\n") !== before.mistakes.join("\n")) {
    yield { event: "config_mistake", mistakes: [...mistakes] };
  }
  for (const [device, { from, why }] of without(now.missing, before.missing)) {
    yield { event: "device_missing", device, from, why };
  }
}

/** @param nowMs from a clock that daemons share */
export function differences(before: Facts, now: Facts, nowMs: number): NewDaemonEvent[] {
  return [
    ...healthEvents(before, now),
    ...deviceEvents(before, now),
    ...snapshotEvents(before, now),
    ...countEvents(before, now, nowMs),
  ];
}

/** A counter after its report, if that was due. */
function afterReport(reported: Reported, { count }: Reported, nowMs: number): Reported {
  // A reactor that does not answer reports no count.
  const seen = Math.max(count, reported.seen);
  const isReported = isDue(count - reported.count, reported, nowMs);
  return isReported ? { count, atMs: nowMs, seen } : { ...reported, seen };
}

/** The state for the next comparison: counters as reported. */
export function reportedFacts(before: Facts, now: Facts, nowMs: number): Facts {
  const report = (id: string, device: string, kind: Counted, counter: Reported): Reported =>
    afterReport(reportedOf(before, now, id, device, kind), counter, nowMs);
  const counters = (id: string, snapshot: SnapshotFacts): SnapshotFacts["counters"] =>
    Object.fromEntries(
      Object.entries(snapshot.counters).map(([device, its]) => [
        device,
        {
          writes_refused: report(id, device, "writes_refused", its.writes_refused),
          writes_blocked: report(id, device, "writes_blocked", its.writes_blocked),
          late_io: report(id, device, "late_io", its.late_io),
        },
      ]),
    );
  const snapshots = Object.entries(now.snapshots).map(([id, snapshot]) => [
    id,
    { ...snapshot, counters: counters(id, snapshot) },
  ]);
  const devices = Object.entries(now.devices).map(([device, facts]) => {
    const { errors = NEVER } = facts;
    const reported = reportedErrors(before, now, device);
    return [device, { ...facts, errors: afterReport(reported, errors, nowMs) }];
  });
  return {
    ...now,
    devices: Object.fromEntries(devices),
    snapshots: Object.fromEntries(snapshots),
  };
}
