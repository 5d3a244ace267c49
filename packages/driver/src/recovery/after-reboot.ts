/**
 * After a reboot: restores persistent trackers and snapshots from the medium.
 *
 * ```
 *   records ─▶ maps of areas from their journals, on tmpfs ─▶ snapshot resumed, as after a crash
 *                                                                   │ areas
 *   records ─▶ original opened, compared with its record ───────────▼
 *                 nothing wrote to it ─▶ front with its area, image
 *                 something did ───────▶ front alone: the image would be wrong
 * ```
 */

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ControlError } from "@blksnap/api";
import type { AreaId, SleepingArea } from "@blksnap/data-plane";
import { AreaState, DiffAreaMap, firstMapBytes, isWholeMap } from "@blksnap/engine";
import { uuidBytes } from "@blksnap/linux-block";
import { bounded, MappedMemory } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { loadAreaJournal } from "../records/area-journal-file.js";
import { KeptFile, StateFile } from "../records/file-names.js";
import { takeMapMemory } from "../records/map-memory.js";
import { noAnswer } from "../records/persistent-directory.js";
import type { MemberRecord, SnapshotRecord, StoreRecord } from "../records/records.js";
import {
  forgetForGood,
  type PersistentMember,
  type PersistentSnapshotRecord,
} from "../records/snapshot-records.js";
import type { PersistentTrackerRecord } from "../records/tracker-records.js";
import { usableRecords } from "../records/usable-records.js";
import type { Waiting } from "../snapshot/patience.js";
import { acrossBoots, located } from "../snapshot/store-location.js";
import { named } from "../system/errors.js";
import { findPersistent, pathTarget } from "../system/path-target.js";
import { ARRIVAL_INTERVAL_MS, ARRIVAL_PATIENCE_MS } from "../time-limits.js";
import { geometryWith } from "../tracker/geometry.js";
import { Tracker } from "../tracker/tracker.js";
import { recordEnds } from "./record-ends.js";
import { unclaimedJournals } from "./unclaimed-journals.js";

/** A persistent tracker that the last daemon served and this one does not serve yet. */
export interface PendingTracker {
  /** The number that it has from now on. */
  readonly id: number;
  readonly record: PersistentTrackerRecord;
  /** Journals of its areas, from which a later boot would resume them. */
  readonly journals: readonly string[];
}

export interface Restored {
  readonly pending: PendingTracker[];
  /** False: try again; see recordEnds(). */
  readonly endsRecorded: boolean;
  /** Snapshots to be resumed; their areas' maps are in the state directory. */
  readonly snapshots: SnapshotRecord[];
}

/** What the state directory has already. */
export interface Known {
  /** Ids of snapshots, and uuids of persistent trackers. */
  readonly snapshots: ReadonlySet<string>;
  /** Those of these snapshots that end with the machine's power. */
  readonly transient: ReadonlySet<string>;
  /** Uuids of journals of those snapshots' areas. */
  readonly journals: ReadonlySet<string>;
  readonly trackers: ReadonlySet<string>;
  /** Numbers of trackers that return, by uuid: snapshots that were restored before refer to them. */
  readonly numbers: ReadonlyMap<string, number>;
  readonly lastNumber: number;
  /** Names of fronts without a record: each may be that of any tracker. */
  readonly unknownFronts: readonly string[];
  /** There were no trackers: no front makes users wait. */
  readonly isBoot: boolean;
}

/** The result for a medium that cannot be used. */
export const NOTHING: Restored = { pending: [], snapshots: [], endsRecorded: false };

/**
 * Restores what is on the medium but not in the state directory. Every operation that may not answer has a bound: data
 * that is late counts as unreadable, and nothing is written any more for what was given up.
 * @throws ControlError PERSISTENT_STATE_UNUSABLE
 */
export async function restoreAfterReboot(context: DriverContext, known: Known): Promise<Restored> {
  const { persistent, logger } = context;
  if (!(await persistent.exists())) return { ...NOTHING, endsRecorded: true };
  if (!(await mayOwn(context))) return NOTHING;
  // Even if nothing is restored: later records must know that there was this boot.
  await persistent.boot();
  const endsRecorded = await recordEnds(context);
  const keptTrackers = await persistent.readRecords(KeptFile.trackerRecord.prefix);
  const records = usableRecords<PersistentTrackerRecord>(keptTrackers, logger);
  const kept = await persistent.readRecords(KeptFile.snapshotRecord.prefix);
  const found = usableRecords<PersistentSnapshotRecord>(kept, logger);
  await forgetGivenUp(context, found, known);
  let number = known.lastNumber;
  const pending = wantedOf(context, records, known).map((record) => {
    const id = known.numbers.get(record.uuid) ?? ++number;
    return { id, record, journals: journalsOf(record.uuid, found) };
  });
  // If there are fronts, they must not wait.
  if (known.isBoot) {
    const wanted = found.filter(({ snapshot }) => !known.snapshots.has(snapshot.id));
    await untilThere(context, pending, wanted);
  }
  const snapshots: SnapshotRecord[] = [];
  const journals = new Set([...known.journals].map((id) => KeptFile.areaJournal.name(id)));
  for (const record of found) {
    const { id, state } = record.snapshot;
    if (state === "taken") {
      for (const { journal } of record.members)
        journals.add(KeptFile.areaJournal.name(journal ?? ""));
    }
    if (known.snapshots.has(id)) continue;
    const restored = await restoreSnapshot(context, record, pending);
    // On record before any of its devices is: a crash from here on is like any other.
    context.state.writeRecord(StateFile.snapshotRecord.name(id), restored);
    snapshots.push(restored);
  }
  const claims = { trackers: keptTrackers, snapshots: kept, areas: journals };
  await removeUnclaimed(context, unclaimedJournals({ ...claims, inUse: persistent.inUse }));
  return { pending, snapshots, endsRecorded };
}

/** Trackers to attach again; none while one of them may belong to a front with users. */
function wantedOf(
  { logger }: DriverContext,
  records: readonly PersistentTrackerRecord[],
  { trackers, unknownFronts }: Known,
): PersistentTrackerRecord[] {
  const wanted = records.filter(({ attached, uuid }) => attached && !trackers.has(uuid));
  if (unknownFronts.length === 0) return wanted;
  const names = unknownFronts.join(", ");
  for (const { device } of wanted) {
    const what = `${device} is not attached again: it may be the original of ${names}`;
    // The daemon does not attach it automatically: the name may lead to another disk by then.
    const then =
      "restart the daemon, or use `blksnapctl attach --persistent` with the name that it has by then";
    const text = `${what}; once that front is given up, ${then}`;
    logger.error({ device, fronts: unknownFronts }, text);
  }
  return [];
}

/**
 * Snapshots whose journals were not written in time do not survive a power cut. The last daemon may have died before
 * the medium had forgotten them: a later boot would restore them without what was written since.
 */
async function forgetGivenUp(
  context: DriverContext,
  found: readonly PersistentSnapshotRecord[],
  { transient }: Known,
): Promise<void> {
  for (const record of found) {
    if (!transient.has(record.snapshot.id)) continue;
    const { tried } = forgetForGood(context.persistent, record);
    await answered(
      context,
      tried,
      "the record of a snapshot that was given up is not removed; retrying",
    );
  }
}

function journalsOf(tracker: string, found: readonly PersistentSnapshotRecord[]): string[] {
  const taken = found.filter(({ snapshot }) => snapshot.state === "taken");
  const its = taken.flatMap(({ members }) => members).filter((one) => one.tracker === tracker);
  return its.flatMap(({ journal, lost }) => (journal === null || lost ? [] : [journal]));
}

/** True if the medium can be used; if not, that must not stop devices that do not need it. */
async function mayOwn({ persistent, logger }: DriverContext): Promise<boolean> {
  try {
    await persistent.own();
    return true;
  } catch (error) {
    const { code, message } = error as ControlError;
    if (code === "ALREADY_RUNNING") throw error;
    logger.error({ err: error }, `no persistent tracker is attached again: ${message}`);
    return false;
  }
}

/**
 * At boot, disks and file systems may arrive after the daemon. Waits for those that are needed, before anything is
 * recorded that a daemon killed meanwhile would leave behind.
 */
async function untilThere(
  { logger }: DriverContext,
  pending: readonly PendingTracker[],
  records: readonly PersistentSnapshotRecord[],
): Promise<void> {
  const deadlineMs = performance.now() + ARRIVAL_PATIENCE_MS;
  const stores = records
    .filter(({ snapshot }) => snapshot.state !== "destroying")
    .flatMap(({ snapshot }) => snapshot.stores)
    .map(({ path, fileName, ...rest }) => ({
      path: fileName === undefined ? path : join(path, fileName),
      store: acrossBoots({ path, ...(fileName === undefined ? {} : { fileName }), ...rest }),
    }));
  const wanted = [
    ...pending.map(({ record }) => ({
      path: record.device,
      isThere: async () => (await findPersistent(record)) !== undefined,
    })),
    ...stores.map(({ path, store }) => ({ path, isThere: () => isThere(store, path) })),
  ];
  for (const { path, isThere: isItThere } of wanted) {
    if (performance.now() > deadlineMs) return;
    if (await isItThere()) continue;
    logger.warn({ path }, "not found yet: waiting for it");
    while (performance.now() < deadlineMs && !(await isItThere())) await sleep(ARRIVAL_INTERVAL_MS);
  }
}

/** Other problems with the store are reported when it is opened. */
async function isThere(store: StoreRecord, path: string): Promise<boolean> {
  try {
    await pathTarget(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") return true;
  }
  // It may have another name.
  const found = await located(store).catch(() => undefined);
  return found !== undefined && found.path !== store.path;
}

/**
 * Writes make no copies from now on, so no later boot may resume the tracker's areas. Returns false if the medium
 * cannot promise that.
 */
async function forgetAreas(
  { persistent, logger }: DriverContext,
  { record: { device }, journals }: PendingTracker,
): Promise<boolean> {
  try {
    for (const journal of journals) {
      const removing = persistent.removeFile(KeptFile.areaJournal.name(journal));
      await bounded(removing, persistent.answerTimeoutMs, noAnswer);
    }
    return true;
  } catch (error) {
    const why = (error as Error).message;
    const text = `${device} is not attached again before the next start: its lost image stays on record: ${why}`;
    logger.error({ device, err: error }, text);
    return false;
  }
}

/**
 * Without this, a daemon after a power cut would find the area that writes have bypassed, and show a wrong image.
 *
 * @returns false: the device stays unattached
 */
async function isAreaForgotten(
  { logger }: DriverContext,
  device: string,
  onAreaLost: () => Promise<void>,
): Promise<boolean> {
  try {
    await onAreaLost();
    return true;
  } catch (error) {
    const text = `${device} is not attached again before the next start: its lost diff area stays on record`;
    logger.fatal({ device, err: error }, `${text}: ${(error as Error).message}`);
    return false;
  }
}

/**
 * Attaches a tracker again, with its area if nothing wrote to the original meanwhile.
 * @param onAreaLost called if its area cannot continue: before the next write, the area must be forgotten
 */
export async function attachPending(
  context: DriverContext,
  pending: PendingTracker,
  area: SleepingArea | undefined,
  onAreaLost: () => Promise<void>,
  waiting: Waiting,
): Promise<Tracker | undefined> {
  const { id, record } = pending;
  const { device, uuid } = record;
  const { logger } = context;
  if (area === undefined && !(await forgetAreas(context, pending))) return undefined;
  const openAt = await findPersistent(record);
  const recorded = {
    persistent: true,
    uuid,
    ...(openAt === undefined ? {} : { openAt }),
    onReady: () => waiting.ready(),
  };
  if (openAt !== undefined && openAt !== device) {
    logger.warn(
      { device, openAt },
      `${device} is now ${openAt}, according to the disk's own identity`,
    );
  }
  if (area !== undefined) {
    try {
      return await Tracker.attach(context, id, device, { ...recorded, area, onAreaLost });
    } catch (error) {
      if (waiting.isGivenUp) return undefined;
      // The device matters more than its snapshot.
      logger.error({ device, err: error }, `${device} is not attached with its snapshot`);
      if (!(await isAreaForgotten(context, device, onAreaLost))) return undefined;
    }
  }
  try {
    return await named(Tracker.attach(context, id, device, recorded));
  } catch (error) {
    if (waiting.isGivenUp) return undefined;
    const { code, message } = error as ControlError;
    const giveUp = `if it will not come back: blksnapctl detach --device ${device} --forget`;
    const then = code === "DEVICE_NOT_FOUND" ? `; ${giveUp}` : "";
    const text = `${device} is not attached again: ${message}${then}`;
    logger.error({ device, err: error }, text);
    return undefined;
  }
}

/** The record in the form that a crash of the daemon leaves. */
async function restoreSnapshot(
  context: DriverContext,
  record: PersistentSnapshotRecord,
  pending: readonly PendingTracker[],
): Promise<SnapshotRecord> {
  const { snapshot } = record;
  const { logger, persistent } = context;
  const taken = snapshot.state === "taken";
  const members: MemberRecord[] = [];
  for (const member of record.members) {
    const tracker = pending.find((one) => one.record.uuid === member.tracker);
    if (tracker === undefined) {
      logger.error({ snapshot: snapshot.id }, `no tracker ${member.tracker} for the snapshot`);
      continue;
    }
    const { id } = tracker;
    const { uuid } = tracker.record;
    if (!taken) members.push({ tracker: id, area: null, map: null, image: null, uuid });
    else {
      const { device } = tracker.record;
      try {
        const restored = await restoreMap(context, snapshot.id, tracker, member);
        const { journal, errorCode } = member;
        const loss = errorCode === undefined ? {} : { errorCode };
        members.push({ tracker: id, ...restored, image: null, journal, uuid, ...loss });
      } catch (error) {
        const text = `the image of ${device} is lost: ${(error as Error).message}`;
        logger.error({ snapshot: snapshot.id, device, err: error }, text);
      }
    }
  }
  if (snapshot.state !== "destroying" && (members.length > 0 || record.members.length === 0)) {
    return { ...snapshot, stores: snapshot.stores.map(acrossBoots), members };
  }
  const { tried } = forgetForGood(persistent, record);
  await answered(context, tried, "the record of a lost snapshot is not removed; retrying");
  // The rest is removed as after a crash.
  return { ...snapshot, state: "destroying", members: [] };
}

/** Makes the area's map on tmpfs. @throws Error, JournalError: the journal's problem */
async function restoreMap(
  context: DriverContext,
  snapshotId: string,
  { record }: PendingTracker,
  { area = null, journal, lost }: PersistentMember,
): Promise<{ area: AreaId; map: string }> {
  if (lost) throw new Error("old data could not be saved before the machine went down");
  if (journal === null) throw new Error("its area has no journal");
  const id = area ?? journal;
  if (journal !== id) throw new Error(`its journal is of the area ${journal}, not of ${id}`);
  const geometry = geometryWith(record.tracking, record.chunkShift);
  const lengthBytes = DiffAreaMap.byteLength(geometry);
  const name = StateFile.areaMap.name(snapshotId, id);
  const file = await context.state.createMap(name, lengthBytes, firstMapBytes(geometry));
  let memory: MappedMemory | undefined;
  try {
    memory = MappedMemory.file(file.fd, 0, lengthBytes);
    const map = DiffAreaMap.create(memory.buffer, geometry, uuidBytes(id), isWholeMap(geometry));
    const take = (chunk: number): void => takeMapMemory(file, map, chunk);
    await loadAreaJournal(context.persistent, journal, map, take);
    map.setState(AreaState.ACTIVE);
    return { area: id, map: file.name };
  } catch (error) {
    context.state.removeFile(file.name);
    throw error;
  } finally {
    memory?.unmap();
    context.state.closeMap(file);
  }
}

async function removeUnclaimed(
  context: DriverContext,
  isUnclaimed: (name: string) => boolean,
): Promise<void> {
  const { persistent } = context;
  let isGivenUp = false;
  const removing = async (): Promise<void> => {
    for (const name of await persistent.names()) {
      // By now there may be others that are unknown here.
      if (isGivenUp) return;
      if (isUnclaimed(name)) await persistent.removeFile(name);
    }
  };
  await answered(context, removing(), "unclaimed journals stay there");
  isGivenUp = true;
}

/** Waits for optional work on the medium. @param otherwise the log text if it fails */
async function answered(
  { persistent, logger }: DriverContext,
  work: Promise<void>,
  otherwise: string,
): Promise<void> {
  try {
    await bounded(work, persistent.answerTimeoutMs, noAnswer);
  } catch (error) {
    logger.error({ err: error }, `${persistent.path}: ${(error as Error).message}: ${otherwise}`);
  }
}
