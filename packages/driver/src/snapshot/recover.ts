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
import { closeSync } from "node:fs";
import { AreaState, DiffAreaMap, type TrackerGeometry } from "@blksnap/engine";
import { type UblkDeviceInfo, UblkState } from "@blksnap/ublk";
import { bounded, MappedMemory } from "@blksnap/uring";
import { faultPoint } from "../fault-points.js";
import { AreaJournalFile, areaJournalName } from "../persistence/area-journal-file.js";
import { noAnswer } from "../persistence/persistent-directory.js";
import type { AreaFigures } from "../reactor/area-counter.js";
import type { AreaSetup } from "../reactor/messages.js";
import type { SnapshotRecord, TrackerRecord } from "../state/records.js";
import type { MapFile } from "../state/state-directory.js";
import { usableRecords } from "../state/usable-records.js";
import { DeviceMark, isOurs, ownDevices } from "../system/served-device.js";
import { openStoresFenced } from "../tracker/fence.js";
import { forgetIfGone, type WaitingFront } from "../tracker/late-recovery.js";
import { Tracker, type TrackerContext } from "../tracker/tracker.js";
import { deleteOwnImage, discard, forgetPersistent, rollBack } from "./discard.js";
import { openImage, recoverImage } from "./image.js";
import { lookThrough } from "./look-through.js";
import { attachPending, type Known, type Restored, restorePersistent } from "./restore.js";
import { Snapshot, type SnapshotContext } from "./snapshot.js";
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

/** How long fronts wait for a medium that keeps a snapshot; then it goes on without. */
const MEDIUM_PATIENCE_MS = 20_000;

/** A snapshot to be gone on with, and what its members have, by their trackers' numbers. */
interface Resumed {
  readonly record: SnapshotRecord;
  readonly snapshot: Snapshot;
  readonly maps: ReadonlyMap<number, MapFile>;
  readonly areas: ReadonlyMap<number, AreaSetup>;
  readonly journals: ReadonlyMap<number, AreaJournalFile>;
  /** Numbers of images that are still there. */
  readonly images: ReadonlyMap<number, number>;
  /** Errnos with which blocks were lost. */
  readonly faults: ReadonlyMap<number, number>;
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
  for (const one of pending) {
    const onAreaLost = () => abandonArea(context, resumed, one.id);
    found.push(await attachPending(context, one, areaOf(resumed, one.id), onAreaLost));
  }
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
    const snapshot = await resumeSnapshot(context, record, records, geometries);
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
    journals: new Set(
      snapshots.flatMap(({ members }) => members.map(({ journal }) => journal ?? "")),
    ),
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

/** @param all the records with which it was found */
async function resumeSnapshot(
  context: RecoverContext,
  found: SnapshotRecord,
  all: readonly SnapshotRecord[],
  geometries: ReadonlyMap<number, TrackerGeometry>,
): Promise<Resumed | undefined> {
  if (found.state === "creating" || found.state === "destroying") {
    await discard(context, found, all);
    return undefined;
  }
  const record = found.state === "taking" ? await rollBack(context, found, all) : found;
  const { members } = record;
  const maps = new Map<number, MapFile>();
  const faults = new Map<number, number>();
  let journals: ReadonlyMap<number, AreaJournalFile> | undefined;
  let snapshot: Snapshot | undefined;
  try {
    const slots: (readonly number[])[] = [];
    const figures = new Map<number, AreaFigures>();
    for (const { tracker, map: name } of members) {
      if (name === null) continue;
      const map = context.state.openMap(name);
      maps.set(tracker, map);
      const found = await lookThrough(map, geometries.get(tracker));
      slots.push(found.used);
      figures.set(tracker, found.figures);
      faults.set(tracker, found.faultErrno);
    }
    journals = await renewJournals(context, record, maps);
    const persistent = record.persistent === true && journals !== undefined;
    const resumed = new Snapshot(context, { ...record, persistent }, true);
    snapshot = resumed;
    await openStoresFenced(() => resumed.openStorage(slots.flat()));
    faultPoint("recover.stores-opened");
    const areas = new Map<number, AreaSetup>();
    const images = new Map<number, number>();
    for (const [tracker, map] of maps) {
      const area = await snapshot.areaSetup(map, members.length, journals?.get(tracker));
      const image = await imageOf(context, record, tracker);
      if (image !== undefined) images.set(tracker, image.id);
      const its = figures.get(tracker);
      const imageDepth = image?.queueDepth ?? 0;
      areas.set(tracker, { ...area, imageDepth, ...(its === undefined ? {} : { figures: its }) });
    }
    return {
      record,
      snapshot: resumed,
      maps,
      areas,
      journals: journals ?? new Map(),
      images,
      faults,
    };
  } catch (error) {
    context.logger.error({ snapshot: record.id, err: error }, "snapshot is lost");
    for (const { fd } of maps.values()) closeSync(fd);
    for (const journal of journals?.values() ?? []) await journal.close();
    await snapshot?.closeStorage().catch(() => undefined);
    await discard(context, record, all);
    return undefined;
  }
}

/** Else a daemon that is killed, or a power cut, would bring it back without what is written from now on. */
async function abandonArea(
  context: RecoverContext,
  resumed: readonly Resumed[],
  tracker: number,
): Promise<void> {
  const its = resumed.find(({ maps }) => maps.has(tracker));
  const map = its?.maps.get(tracker);
  const journal = its?.journals.get(tracker);
  if (map !== undefined) {
    const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
    DiffAreaMap.open(memory.buffer).state = AreaState.DROPPED;
    memory.unmap();
  }
  if (journal !== undefined) await context.persistent.removeFile(areaJournalName(journal.uuid));
}

/** The image that the record names, where it is still one that can be gone on with. */
async function imageOf(
  { control, state }: RecoverContext,
  { members }: SnapshotRecord,
  tracker: number,
): Promise<UblkDeviceInfo | undefined> {
  const { image } = members.find((member) => member.tracker === tracker) ?? {};
  const info = await control.deviceInfo(image ?? -1);
  if (info === undefined || !isOurs(info, state.owner)) return undefined;
  const isUsable = info.serverFlags === DeviceMark.IMAGE && info.state !== UblkState.DEAD;
  return isUsable ? info : undefined;
}

/**
 * Journals with what the maps have: what the dead daemon's say beyond that, nobody relied on. Undefined
 * where the medium fails: the snapshot goes on, and ends with the machine's power.
 */
async function renewJournals(
  context: RecoverContext,
  record: SnapshotRecord,
  maps: ReadonlyMap<number, MapFile>,
): Promise<ReadonlyMap<number, AreaJournalFile> | undefined> {
  const journals = new Map<number, AreaJournalFile>();
  if (record.persistent !== true) return journals;
  const deadlineMs = performance.now() + MEDIUM_PATIENCE_MS;
  try {
    for (const { tracker, journal: uuid } of record.members) {
      const map = maps.get(tracker);
      if (map === undefined || typeof uuid !== "string") continue;
      const renewing = renewJournal(context, map, uuid);
      journals.set(tracker, await bounded(renewing, deadlineMs - performance.now(), noAnswer));
    }
    return journals;
  } catch (error) {
    const text = "the snapshot will not outlive this machine's power: its journal is not written";
    context.logger.error({ snapshot: record.id, err: error }, text);
    for (const journal of journals.values()) await journal.close().catch(() => undefined);
    await forgetPersistent(context, record);
    return undefined;
  }
}

async function renewJournal(
  context: RecoverContext,
  map: MapFile,
  uuid: string,
): Promise<AreaJournalFile> {
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  try {
    context.persistent.own();
    return await AreaJournalFile.create(context.persistent, uuid, DiffAreaMap.open(memory.buffer));
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
  { record, snapshot, maps, journals, images, faults }: Resumed,
  trackers: readonly Tracker[],
): Promise<boolean> {
  for (const { tracker: id, image } of record.members) {
    const tracker = trackers.find((one) => one.id === id);
    const map = maps.get(id);
    const journal = journals.get(id);
    if (tracker !== undefined && (map === undefined || tracker.hasOldArea)) {
      snapshot.addMember(tracker, map, images.get(id)).journal = journal;
      const errno = faults.get(id) ?? 0;
      // The daemon ended before it was told.
      if (errno !== 0 && tracker.errorCode === 0) snapshot.fault(tracker, errno);
      continue;
    }
    const device = tracker?.device;
    context.logger.error({ snapshot: snapshot.id, device }, "the image of a device is lost");
    await journal?.close();
    if (journal !== undefined) await removeJournal(context, journal);
    if (map !== undefined) context.state.removeMap(map);
    if (image !== null) await deleteOwnImage(context, image);
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
    for (const { imageNumber } of unserved) await deleteOwnImage(context, imageNumber ?? -1);
    await closeMembers(context, members);
    for (const member of members) await snapshot.persistence.removeJournal(member);
    await snapshot.closeStorage();
    await snapshot.persistence.forget().catch(() => undefined);
    await forgetPersistent(context, record);
    snapshot.forget();
    return false;
  }
}

/** What cannot be removed is nobody's at the next start, and removed then. */
async function removeJournal(
  { persistent, logger }: RecoverContext,
  { uuid }: AreaJournalFile,
): Promise<void> {
  await persistent.removeFile(areaJournalName(uuid)).catch((error) => {
    logger.warn({ err: error }, "the journal of a lost image is not removed");
  });
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
    await context.control.deleteDevice(id).catch((error) => {
      context.logger.warn({ device, err: error }, "device is not removed");
    });
  }
}
