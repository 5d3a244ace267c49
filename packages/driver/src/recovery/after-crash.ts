/**
 * After a crash: finishes, undoes or resumes what an earlier daemon has left.
 *
 * ```
 *   trackers             ─▶ fronts are resumed at once; in a taken snapshot with an area that sleeps
 *   creating, destroying ─▶ gone: images and files removed
 *   taking               ─▶ created: images and maps removed; no user has seen an image yet
 *   created, taken       ─▶ stores reopened, fenced; areas wake; images are resumed (resume.ts)
 * ```
 *
 * Fronts come first and wait for no store and no journal. Then all snapshots are resumed concurrently. A snapshot that
 * cannot be resumed is reported as lost; the fronts are resumed regardless.
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { ControlError } from "@blksnap/api";
import type { AreaId, SleepingArea } from "@blksnap/data-plane";
import { faultPoint } from "@blksnap/data-plane";
import { AreaState, DiffAreaMap, type TrackerGeometry } from "@blksnap/engine";
import { MappedMemory } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { areaIdOf } from "../records/area-id-of.js";
import { KeptFile, StateFile } from "../records/file-names.js";
import type { SnapshotRecord, TrackerRecord } from "../records/records.js";
import { usableRecords } from "../records/usable-records.js";
import { patiently } from "../snapshot/patience.js";
import type { Snapshot } from "../snapshot/snapshot.js";
import {
  FRONTS_HEAD_START_MS,
  RESTORED_HEAD_START_MS,
  RESTORED_PATIENCE_MS,
} from "../time-limits.js";
import { Tracker } from "../tracker/tracker.js";
import type { LeftArea } from "../tracker/tracker-options.js";
import {
  attachPending,
  type Known,
  NOTHING,
  type PendingTracker,
  type Restored,
  restoreAfterReboot,
} from "./after-reboot.js";
import { discard, rollBack } from "./discard.js";
import { forgetIfGone, type WaitingFront } from "./late-recovery.js";
import { removeUnclaimedFiles } from "./remove-unclaimed-files.js";
import { type Found, lookThroughAll, type Resuming, resumeSnapshot } from "./resume.js";
import { UnknownFronts } from "./unknown-fronts.js";

/** Receives each tracker and snapshot as soon as it is back, so that its notices are answered meanwhile. */
export interface RecoveryListener {
  tracker(tracker: Tracker): void;
  snapshot(snapshot: Snapshot): void;
  /** A snapshot that was reported before is lost. */
  lost(snapshot: Snapshot): void;
  /** A snapshot has its stores, or another of its devices. */
  progressed(): void;
}

/** What was recovered from an earlier daemon's directory. */
export interface Recovered {
  readonly trackers: Tracker[];
  readonly snapshots: Snapshot[];
  /** Trackers whose fronts could not be resumed yet; their users wait. */
  readonly waiting: WaitingFront[];
  /** Fronts without a record. */
  readonly unknown: UnknownFronts;
  /** Largest tracker number on record, usable or not; 0 without any. */
  readonly lastTracker: number;
  /** See Restored. */
  readonly endsRecorded: boolean;
}

/** Trackers that are being recovered, by number. */
export type Fronts = Map<number, Promise<Tracker | undefined>>;

export async function recoverAfterCrash(
  context: DriverContext,
  listener: RecoveryListener,
): Promise<Recovered> {
  const { logger } = context;
  const records = usableRecords<SnapshotRecord>(
    context.state.readRecords(StateFile.snapshotRecord.prefix),
    logger,
  );
  const trackerRecords = usableRecords<TrackerRecord>(
    context.state.readRecords(StateFile.trackerRecord.prefix),
    logger,
  );
  const geometries = new Map(trackerRecords.map(({ id, geometry }) => [id, geometry]));
  faultPoint("recover.records-read");
  const waiting: WaitingFront[] = [];
  const fronts: Fronts = new Map();
  const begin = (record: TrackerRecord, sleeping?: SleepingArea): void => {
    const left = { sleeping, kept: keptAreas(records, record.id) };
    fronts.set(record.id, recoverTracker(context, record, left, waiting, listener));
  };
  const inSnapshot = devicesWithAreas(records);
  for (const record of trackerRecords) if (!inSnapshot.has(record.id)) begin(record);
  const found = await lookThroughAll(context, records, geometries);
  for (const record of trackerRecords) {
    if (inSnapshot.has(record.id)) begin(record, areaOf(found, record.id));
  }
  let allKnown = (): void => undefined;
  const restored = new Promise<void>((resolve) => {
    allKnown = resolve;
  });
  const serving = Promise.race([
    Promise.all(fronts.values()),
    sleep(FRONTS_HEAD_START_MS, undefined, { ref: false }),
  ]);
  const resuming: Resuming = { fronts, serving, all: records, listener, restored };
  const resumeOrFinish = (one: Found) => {
    if ("snapshot" in one) return resumeSnapshot(context, one, resuming);
    return finish(context, one.record, resuming, geometries);
  };
  const tasks = found.map(resumeOrFinish);
  await Promise.all(fronts.values());
  const kept = await keptTrackers(trackerRecords, fronts, waiting);
  // Only now: the medium may be slow, and users of existing fronts do not wait for it.
  const unknown = await UnknownFronts.find(context.frontend, trackerRecords);
  const restoring = afterReboot(context, records, trackerRecords, kept, unknown);
  const { pending, snapshots: restoredRecords, endsRecorded } = await restoring;
  const again = await lookThroughAll(context, restoredRecords, geometries);
  let earlier: Promise<unknown> = Promise.resolve();
  for (const one of pending) {
    // What the end of a snapshot is removing from the medium may still return after a power cut.
    const journals = [...one.journals, ...journalsOf(records, one.record.uuid)];
    const its = { ...one, journals };
    const attached = earlier.then(() => restoreFront(context, its, [...found, ...again], listener));
    fronts.set(one.id, attached);
    const headStart = sleep(RESTORED_HEAD_START_MS, undefined, { ref: false });
    earlier = earlier.then(() => Promise.race([attached, headStart]));
  }
  allKnown();
  tasks.push(...again.map(resumeOrFinish));
  const trackers = (await Promise.all(fronts.values())).filter((one) => one !== undefined);
  faultPoint("recover.fronts-live");
  const snapshots = (await Promise.all(tasks)).filter((one) => one !== undefined);
  await context.frontend.removeOrphans(numbersOf(trackers, waiting, snapshots));
  faultPoint("recover.orphans-removed");
  const removed = removeUnclaimedFiles(context.state, snapshots);
  if (removed.length > 0)
    context.logger.info({ removed }, "files of an interrupted operation removed");
  const lastTracker = largestNumber(context);
  return { trackers, snapshots, waiting, unknown, lastTracker, endsRecorded };
}

function journalsOf(records: readonly SnapshotRecord[], uuid: string): string[] {
  const its = records.flatMap(({ members }) => members).filter((member) => member.uuid === uuid);
  return its.flatMap(({ journal }) => (typeof journal === "string" ? [journal] : []));
}

async function restoreFront(
  context: DriverContext,
  pending: PendingTracker,
  found: readonly Found[],
  listener: RecoveryListener,
): Promise<Tracker | undefined> {
  const { device } = pending.record;
  const area = areaOf(found, pending.id);
  const tracker = await patiently(
    (waiting) => {
      const onAreaLost = async () => {
        // If it was given up, it has no area any more, and its map's descriptor may mean another file.
        waiting.assertWanted();
        await abandonArea(context, found, pending.id);
      };
      return attachPending(context, pending, area, onAreaLost, waiting);
    },
    RESTORED_PATIENCE_MS,
    () => {
      const text = `${device} is not attached again: it, or the disk of its records, does not answer`;
      context.logger.error({ device, patienceMs: RESTORED_PATIENCE_MS }, text);
    },
  );
  if (tracker !== undefined) listener.tracker(tracker);
  return tracker;
}

/**
 * Areas of a tracker that a later boot could find on the medium: until they are forgotten there, blocks written without
 * copies would be missing from their images.
 */
function keptAreas(records: readonly SnapshotRecord[], tracker: number): AreaId[] {
  const its = records.flatMap(({ members }) => members).filter((one) => one.tracker === tracker);
  const kept = its.filter(({ journal }) => typeof journal === "string");
  return kept.map(areaIdOf).filter((id) => id !== undefined);
}

/** Numbers of trackers whose fronts need the map of an area. */
function devicesWithAreas(records: readonly SnapshotRecord[]): Set<number> {
  const taken = records.filter(({ state }) => state === "taken");
  const members = taken.flatMap((record) => record.members);
  return new Set(members.flatMap(({ tracker, map }) => (map === null ? [] : [tracker])));
}

/** Finishes or undoes snapshots that the earlier daemon was creating, taking or destroying, or has left damaged. */
async function finish(
  context: DriverContext,
  record: SnapshotRecord,
  resuming: Resuming,
  geometries: ReadonlyMap<number, TrackerGeometry>,
): Promise<Snapshot | undefined> {
  await resuming.serving;
  if (record.state !== "taking") {
    await discard(context, record, resuming.all);
    return undefined;
  }
  const rolledBack = await rollBack(context, record, resuming.all);
  const [found] = await lookThroughAll(context, [rolledBack], geometries);
  return found !== undefined && "snapshot" in found
    ? resumeSnapshot(context, found, resuming)
    : undefined;
}

/**
 * Trackers that serve, or wait. Any other front has ended: a daemon was killed while it attached or detached the
 * device, or another program has deleted the front. A tracker that the medium still has is attached again if it should
 * be attached at all, and its snapshot continues without it.
 */
async function keptTrackers(
  records: readonly TrackerRecord[],
  fronts: Fronts,
  waiting: readonly WaitingFront[],
): Promise<TrackerRecord[]> {
  const kept: TrackerRecord[] = [];
  for (const record of records) {
    const { id } = record;
    const waits = waiting.some((front) => front.record.id === id);
    if (waits || (await fronts.get(id)) !== undefined) kept.push(record);
  }
  return kept;
}

/** Recovers what only the medium has: after a reboot, or without a front. */
async function afterReboot(
  context: DriverContext,
  snapshots: readonly SnapshotRecord[],
  found: readonly TrackerRecord[],
  trackers: readonly TrackerRecord[],
  unknown: UnknownFronts,
): Promise<Restored> {
  const numbers = new Map<string, number>();
  const used = found.map(({ id }) => id);
  // A tracker that had a front gets another number: files with the old one do not belong to it any more.
  const had = new Set(found.map(({ uuid }) => uuid));
  for (const { uuid, tracker } of snapshots.flatMap(({ members }) => members)) {
    used.push(tracker);
    if (uuid !== undefined && !had.has(uuid)) numbers.set(uuid, tracker);
  }
  const known: Known = {
    snapshots: new Set(snapshots.map(({ id }) => id)),
    transient: new Set(
      snapshots.filter(({ persistent }) => persistent !== true).map(({ id }) => id),
    ),
    journals: new Set(
      snapshots.flatMap(({ members }) => members.map(({ journal }) => journal ?? "")),
    ),
    trackers: new Set(trackers.map(({ uuid = "" }) => uuid)),
    numbers,
    lastNumber: Math.max(largestNumber(context), ...used),
    unknownFronts: unknown.names,
    isBoot: found.length === 0 && unknown.names.length === 0,
  };
  try {
    return await restoreAfterReboot(context, known);
  } catch (error) {
    context.logger.error({ err: error }, "persistent trackers are not attached again");
    // Another daemon's directory must not be examined again.
    return { ...NOTHING, endsRecorded: (error as ControlError).code === "ALREADY_RUNNING" };
  }
}

/** Largest tracker number on record, usable or not; 0 without any. */
function largestNumber(context: DriverContext): number {
  const { prefix } = StateFile.trackerRecord;
  const numbers = context.state
    .readRecords(prefix)
    .map(({ name }) => Number(name.slice(prefix.length)));
  return Math.max(0, ...numbers.filter(Number.isInteger));
}

function areaOf(found: readonly Found[], tracker: number): SleepingArea | undefined {
  for (const one of found) {
    const its = "snapshot" in one ? one.members.get(tracker) : undefined;
    if (its !== undefined) return its.sleeping;
  }
  return undefined;
}

/** Otherwise a kill or a power cut would bring the area back without what is written from now on. */
async function abandonArea(
  context: DriverContext,
  found: readonly Found[],
  tracker: number,
): Promise<void> {
  for (const one of found) {
    const its = "snapshot" in one ? one.members.get(tracker) : undefined;
    if (its === undefined) continue;
    const { map } = its.area;
    const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
    DiffAreaMap.open(memory.buffer).setState(AreaState.DROPPED);
    memory.unmap();
    const { journal } = one.record.members.find((member) => member.tracker === tracker) ?? {};
    if (typeof journal === "string")
      await context.persistent.removeFile(KeptFile.areaJournal.name(journal));
  }
}

async function recoverTracker(
  context: DriverContext,
  record: TrackerRecord,
  left: LeftArea,
  waiting: WaitingFront[],
  listener: RecoveryListener,
): Promise<Tracker | undefined> {
  try {
    const tracker = await Tracker.recover(context, record, left);
    listener.tracker(tracker);
    return tracker;
  } catch (error) {
    context.logger.error({ device: record.device, err: error }, "tracker is not recovered");
    const why = (error as Error).message;
    const isGone = await forgetIfGone(context, record).catch(() => false);
    if (isGone) return undefined;
    waiting.push({ record, why, kept: left.kept });
    // Its record on the medium belongs to no other tracker, and has not ended.
    if (record.uuid !== undefined) context.persistent.inUse.add(record.uuid);
    return undefined;
  }
}

/** Numbers of all recorded devices. */
function numbersOf(
  trackers: readonly Tracker[],
  waiting: readonly WaitingFront[],
  snapshots: readonly Snapshot[],
): Set<number> {
  const fronts = [
    ...trackers.map(({ front }) => front.id),
    ...waiting.map(({ record }) => record.front),
  ];
  const images = snapshots.flatMap(({ members }) =>
    [...members.values()].map(({ imageNumber }) => imageNumber ?? null),
  );
  return new Set([...fronts, ...images].filter((number) => number !== null));
}
