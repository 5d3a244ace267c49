/**
 * After a crash: what an earlier daemon has left is finished, taken back, or gone on with.
 *
 * ```
 *   creating, destroying ─▶ gone: images and files removed
 *   taking               ─▶ created: images and maps removed; nobody has seen an image yet
 *   created, taken       ─▶ stores reopened, fenced; slots in use read from the maps
 *   trackers             ─▶ fronts go on, with the areas of taken snapshots
 *   taken                ─▶ images go on
 * ```
 *
 * A snapshot that cannot be had back is lost and said so; the fronts go on in any case.
 */
import { closeSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { AreaState, DiffArea, DiffAreaMap, type TrackerGeometry } from "@blksnap/engine";
import { UblkState } from "@blksnap/ublk";
import { MappedMemory } from "@blksnap/uring";
import { faultPoint } from "../fault-points.js";
import { AreaJournalFile, areaJournalName } from "../persistence/area-journal-file.js";
import { forgetSnapshot } from "../persistence/snapshot-records.js";
import type { AreaSetup } from "../reactor/messages.js";
import { type SnapshotRecord, snapshotRecordName, type TrackerRecord } from "../state/records.js";
import type { MapFile } from "../state/state-directory.js";
import { usableRecords } from "../state/usable-records.js";
import { DeviceMark, ownDevices } from "../system/served-device.js";
import { openStoresFenced } from "../tracker/fence.js";
import { forgetIfGone, type WaitingFront } from "../tracker/late-recovery.js";
import { Tracker, type TrackerContext } from "../tracker/tracker.js";
import { openImage, recoverImage } from "./image.js";
import { attachPending, type Known, type Restored, restorePersistent } from "./restore.js";
import { Snapshot, type SnapshotContext } from "./snapshot.js";
import { MEMORY_STORE } from "./store-record.js";
import { sweep } from "./sweep.js";
import { closeMembers, type TakeContext } from "./take.js";

export type RecoverContext = TrackerContext & SnapshotContext & TakeContext;

/** What an earlier daemon's directory gave back. */
export interface Recovered {
  readonly trackers: Tracker[];
  readonly snapshots: Snapshot[];
  /** Trackers whose fronts could not be gone on with yet; their users wait. */
  readonly waiting: WaitingFront[];
  /** Largest tracker number on record, usable or not; 0 without any. */
  readonly lastTracker: number;
}

/** A snapshot to be gone on with, and the maps of its members. */
interface Resumed {
  readonly record: SnapshotRecord;
  readonly snapshot: Snapshot;
  readonly maps: Map<number, MapFile>;
  readonly areas: Map<number, AreaSetup>;
  readonly journals: Map<number, AreaJournalFile>;
}

export async function recoverAll(context: RecoverContext): Promise<Recovered> {
  const { logger } = context;
  const records = usableRecords<SnapshotRecord>(context.state.readRecords("snapshot-"), logger);
  const trackerRecords = usableRecords<TrackerRecord>(
    context.state.readRecords("tracker-"),
    logger,
  );
  const geometries = new Map(trackerRecords.map(({ id, geometry }) => [id, geometry]));
  faultPoint("recover.records-read");
  const resumed = await resumeAll(context, records, geometries);
  const waiting: WaitingFront[] = [];
  const found = await Promise.all(
    trackerRecords.map((record) =>
      recoverTracker(context, record, areaOf(resumed, record.id), waiting),
    ),
  );
  // Only now what is on a medium that may be slow: the users of living fronts do not wait for it.
  const { pending, snapshots: restored } = await restore(context, records, trackerRecords);
  resumed.push(...(await resumeAll(context, restored, geometries)));
  for (const one of pending) found.push(await attachPending(context, one, areaOf(resumed, one.id)));
  faultPoint("recover.fronts-live");
  const trackers = found.filter((tracker) => tracker !== undefined);
  const snapshots: Snapshot[] = [];
  for (const one of resumed) {
    if (await rejoin(context, one, trackers)) snapshots.push(one.snapshot);
  }
  await removeOrphans(
    context,
    [...trackers.map(({ front }) => front.id), ...waiting.map(({ record }) => record.front)],
    snapshots,
  );
  faultPoint("recover.orphans-removed");
  const swept = sweep(context.state, snapshots);
  if (swept.length > 0) context.logger.info({ swept }, "files of an interrupted operation removed");
  return { trackers, snapshots, waiting, lastTracker: largestNumber(context) };
}

async function resumeAll(
  context: RecoverContext,
  records: readonly SnapshotRecord[],
  geometries: ReadonlyMap<number, TrackerGeometry>,
): Promise<Resumed[]> {
  const resumed: Resumed[] = [];
  for (const record of records) {
    const snapshot = await resumeSnapshot(context, record, geometries);
    if (snapshot !== undefined) resumed.push(snapshot);
  }
  return resumed;
}

/** What the medium has and the state directory has not: after a reboot. */
async function restore(
  context: RecoverContext,
  snapshots: readonly SnapshotRecord[],
  trackers: readonly TrackerRecord[],
): Promise<Restored> {
  const numbers = new Map<string, number>();
  for (const { members } of snapshots) {
    for (const { uuid, tracker } of members) if (uuid !== undefined) numbers.set(uuid, tracker);
  }
  const known: Known = {
    snapshots: new Set(snapshots.map(({ id }) => id)),
    trackers: new Set(trackers.map(({ uuid = "" }) => uuid)),
    numbers,
    lastNumber: Math.max(largestNumber(context), ...numbers.values()),
  };
  try {
    return await restorePersistent(context, known);
  } catch (error) {
    context.logger.error({ err: error }, "persistent trackers are not attached again");
    return { pending: [], snapshots: [] };
  }
}

/** Largest tracker number on record, usable or not; 0 without any. */
function largestNumber(context: RecoverContext): number {
  const numbers = context.state.readRecords("tracker-").map(({ name }) => Number(name.slice(8)));
  return Math.max(0, ...numbers.filter(Number.isInteger));
}

function areaOf(resumed: readonly Resumed[], tracker: number): AreaSetup | undefined {
  return resumed.find(({ areas }) => areas.has(tracker))?.areas.get(tracker);
}

async function resumeSnapshot(
  context: RecoverContext,
  found: SnapshotRecord,
  geometries: ReadonlyMap<number, TrackerGeometry>,
): Promise<Resumed | undefined> {
  if (found.state === "creating" || found.state === "destroying") {
    await discard(context, found);
    return undefined;
  }
  const record = found.state === "taking" ? await rollBack(context, found) : found;
  const { members } = record;
  const maps = new Map<number, MapFile>();
  const journals = new Map<number, AreaJournalFile>();
  try {
    const slots: number[][] = [];
    for (const { tracker, map: name } of members) {
      if (name === null) continue;
      const map = context.state.openMap(name);
      maps.set(tracker, map);
      slots.push(usedSlots(map, geometries.get(tracker)));
    }
    const snapshot = new Snapshot(context, record, true);
    await openStoresFenced(() => snapshot.openStorage(slots.flat()));
    faultPoint("recover.stores-opened");
    const areas = new Map<number, AreaSetup>();
    for (const [tracker, map] of maps) {
      const { image, journal: uuid } = members.find((member) => member.tracker === tracker) ?? {};
      const journal = await renewJournal(context, map, uuid ?? null);
      if (journal !== undefined) journals.set(tracker, journal);
      const area = await snapshot.areaSetup(map, members.length, journal);
      const info = await context.control.deviceInfo(image ?? -1);
      areas.set(tracker, { ...area, imageDepth: info?.queueDepth ?? 0 });
    }
    return { record, snapshot, maps, areas, journals };
  } catch (error) {
    context.logger.error({ snapshot: record.id, err: error }, "snapshot is lost");
    for (const { fd } of maps.values()) closeSync(fd);
    for (const journal of journals.values()) await journal.close();
    await discard(context, record);
    return undefined;
  }
}

/** A journal with what the map has: what the dead daemon's says beyond that, nobody relied on. */
async function renewJournal(
  context: RecoverContext,
  map: MapFile,
  uuid: string | null,
): Promise<AreaJournalFile | undefined> {
  if (uuid === null) return undefined;
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  try {
    context.persistent.own();
    return await AreaJournalFile.create(context.persistent, uuid, DiffAreaMap.open(memory.buffer));
  } finally {
    memory.unmap();
  }
}

/**
 * What its map says of an area that is to go on. All that the reactor relies on is looked at here:
 * there it would be the front that cannot go on.
 * @throws EngineError when it is no map; Error when it is another device's, or damaged
 */
function usedSlots(map: MapFile, geometry: TrackerGeometry | undefined): number[] {
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  try {
    const area = DiffAreaMap.open(memory.buffer);
    if (geometry !== undefined && !area.geometry.equals(geometry)) {
      throw new Error(`the map ${map.name} is of another device`);
    }
    const damage = area.state === AreaState.ACTIVE ? area.damage() : `it is in state ${area.state}`;
    if (damage !== undefined) throw new Error(`the map ${map.name} is damaged: ${damage}`);
    const slots: number[] = [];
    new DiffArea(area).forEachUsedSlot((slot) => slots.push(slot));
    return slots;
  } finally {
    memory.unmap();
  }
}

async function recoverTracker(
  context: RecoverContext,
  record: TrackerRecord,
  area: AreaSetup | undefined,
  waiting: WaitingFront[],
): Promise<Tracker | undefined> {
  try {
    return await Tracker.recover(context, record, area);
  } catch (error) {
    context.logger.error({ device: record.device, err: error }, "tracker is not recovered");
    const why = (error as Error).message;
    if (!(await forgetIfGone(context, record))) waiting.push({ record, why });
    return undefined;
  }
}

/**
 * Puts the recovered trackers back into their snapshot, and its images to work. Answers false when
 * the snapshot is lost; then nothing of it is left.
 */
async function rejoin(
  context: RecoverContext,
  { record, snapshot, maps, journals }: Resumed,
  trackers: readonly Tracker[],
): Promise<boolean> {
  for (const { tracker: id, image } of record.members) {
    const tracker = trackers.find((one) => one.id === id);
    const map = maps.get(id);
    const journal = journals.get(id);
    if (tracker !== undefined && (map === undefined || tracker.hasOldArea)) {
      const number = map === undefined ? undefined : (image ?? undefined);
      snapshot.addMember(tracker, map, number).journal = journal;
      continue;
    }
    const device = tracker?.device;
    context.logger.error({ snapshot: snapshot.id, device }, "the image of a device is lost");
    await journal?.close();
    if (journal !== undefined) await context.persistent.removeFile(areaJournalName(journal.uuid));
    if (map !== undefined) context.state.removeMap(map);
    if (image !== null) await deleteOwnDevice(context, image);
  }
  snapshot.rejoined();
  faultPoint("recover.rejoined");
  if (snapshot.state !== "taken") return true;
  const members = [...snapshot.members.values()];
  try {
    if (members.length === 0) throw new Error("no device of it is there any more");
    for (const member of members) {
      if (member.imageNumber === undefined) await openImage(context, snapshot, member);
      else await recoverImage(context, member);
    }
    return true;
  } catch (error) {
    context.logger.error({ snapshot: snapshot.id, err: error }, "snapshot is lost");
    const unserved = members.filter(({ image }) => image === undefined);
    for (const { imageNumber } of unserved) await deleteOwnDevice(context, imageNumber ?? -1);
    await closeMembers(context, members);
    for (const member of members) await snapshot.persistence.removeJournal(member);
    await snapshot.closeStorage();
    await snapshot.persistence.forget().catch(() => undefined);
    await forgetPersistent(context, record);
    snapshot.forget();
    return false;
  }
}

/**
 * Removes devices of ours that no record names: those that never lived or have ended, and images,
 * which are worth nothing without their snapshot and would have their readers wait for ever.
 */
async function removeOrphans(
  context: RecoverContext,
  fronts: readonly number[],
  snapshots: readonly Snapshot[],
): Promise<void> {
  const known = new Set(fronts);
  for (const { members } of snapshots) {
    for (const { imageNumber } of members.values()) known.add(imageNumber ?? -1);
  }
  for (const { id, state, serverFlags } of await ownDevices(context.control, context.state.owner)) {
    if (known.has(id) || state === UblkState.LIVE) continue;
    const device = `/dev/ublkb${id}`;
    if (state !== UblkState.DEAD && serverFlags === DeviceMark.FRONT) {
      const text = `the front ${device} has no record that can be used: its users wait`;
      context.logger.error({ device }, text);
      continue;
    }
    if (state !== UblkState.DEAD)
      context.logger.error({ device }, "image without a snapshot removed");
    await deleteOwnDevice(context, id);
  }
}

/**
 * Takes back what a take has made, and forgets it: another image may have its number before long.
 * Answers the record from here on.
 */
async function rollBack(context: RecoverContext, record: SnapshotRecord): Promise<SnapshotRecord> {
  await removeTraces(context, record);
  const members = record.members.map((member) => ({ ...member, map: null, image: null }));
  const rolledBack = { ...record, state: "created", members } as const;
  try {
    context.state.writeRecord(snapshotRecordName(record.id), rolledBack);
  } catch (error) {
    context.logger.warn({ snapshot: record.id, err: error }, "record is not up to date");
  }
  return rolledBack;
}

/** Removes everything that a snapshot has left, and its record. What resists stays, and is named. */
async function discard(context: RecoverContext, record: SnapshotRecord): Promise<void> {
  try {
    await removeAll(context, record);
  } catch (error) {
    context.logger.error({ snapshot: record.id, err: error }, "not all of a snapshot is removed");
  }
}

async function removeAll(context: RecoverContext, record: SnapshotRecord): Promise<void> {
  await removeTraces(context, record);
  for (const { path, fileName } of record.stores) {
    if (fileName === undefined) continue;
    const directory = path === MEMORY_STORE ? context.state.path : path;
    try {
      unlinkSync(join(directory, fileName));
    } catch {
      // Never made, or gone with its file system.
    }
  }
  faultPoint("recover.discarded");
  await forgetPersistent(context, record);
  context.state.removeRecord(snapshotRecordName(record.id));
}

/** A persistent snapshot that is lost is to be forgotten on the medium too. */
async function forgetPersistent(context: RecoverContext, record: SnapshotRecord): Promise<void> {
  if (record.persistent !== true) return;
  try {
    context.persistent.own();
    const members = record.members.map(({ journal = null }) => ({
      tracker: "",
      journal,
      lost: true,
    }));
    await forgetSnapshot(context.persistent, { snapshot: record, members });
  } catch (error) {
    context.logger.error({ snapshot: record.id, err: error }, "its record is not removed");
  }
}

/** Removes the images and maps of a snapshot. */
async function removeTraces(context: RecoverContext, record: SnapshotRecord): Promise<void> {
  for (const { image, map } of record.members) {
    if (image !== null) await deleteOwnDevice(context, image);
    if (map !== null) context.state.removeFile(map);
  }
}

async function deleteOwnDevice(context: RecoverContext, id: number): Promise<void> {
  try {
    const own = await ownDevices(context.control, context.state.owner);
    if (own.some((device) => device.id === id)) await context.control.deleteDevice(id);
  } catch (error) {
    context.logger.warn({ device: `/dev/ublkb${id}`, err: error }, "device is not removed");
  }
}
