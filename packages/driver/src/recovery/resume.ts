/**
 * Resumes a snapshot of an earlier daemon, concurrently with its fronts and other snapshots.
 *
 * ```
 *   maps checked ─▶ areas that sleep ─▶ fronts serve: reads, and writes that need no copy
 *                                           │
 *   stores opened, fenced, bounded ─────────▼
 *                     ├─ all open ─▶ journal from the map ─▶ area wakes: copies begin ─▶ images
 *                     └─ not ──────▶ snapshot lost: its writes continue without copies
 * ```
 *
 * A map does not change while its area sleeps. When the area wakes, copies that were left behind their writes resume.
 */
import { closeSync } from "node:fs";
import type { SleepingArea } from "@blksnap/data-plane";
import { faultPoint } from "@blksnap/data-plane";
import { DiffStorageError, type Store } from "@blksnap/diff-storage";
import { DiffAreaMap, type TrackerGeometry } from "@blksnap/engine";
import { EIO, ENODEV } from "@blksnap/errors";
import { bounded, MappedMemory } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { areaIdOf } from "../records/area-id-of.js";
import { AreaJournalFile } from "../records/area-journal-file.js";
import { noAnswer } from "../records/persistent-directory.js";
import type { MemberRecord, SnapshotRecord } from "../records/records.js";
import { forgetAreaForGood } from "../records/snapshot-records.js";
import { withAreaSyncs } from "../snapshot/area-syncs.js";
import { corrupted } from "../snapshot/events.js";
import { type FoundArea, lookThrough } from "../snapshot/look-through.js";
import {
  closeMember,
  hasLost,
  type Member,
  type MemberArea,
  openImage,
  recoverImage,
} from "../snapshot/member.js";
import { Snapshot } from "../snapshot/snapshot.js";
import { assertMarked } from "../snapshot/store-mark.js";
import {
  FORGETTING_PATIENCE_MS,
  JOURNAL_RENEWAL_PATIENCE_MS,
  STORES_PATIENCE_MS,
} from "../time-limits.js";
import { openStoresFenced } from "../tracker/fence.js";
import type { Tracker } from "../tracker/tracker.js";
import type { Fronts, RecoveryListener } from "./after-crash.js";
import { discard, forgetPersistent } from "./discard.js";
import { beginWithSealed } from "./sealed-stores.js";

/** What is left of a device in a snapshot that was taken. */
export interface ResumedMember {
  readonly area: MemberArea;
  /** The area for the reactor, until the stores are open. */
  readonly sleeping: SleepingArea;
  /** Number of its image, if that still exists. */
  readonly image: number | undefined;
  /** Errno of its first lost block, or 0. */
  readonly faultErrno: number;
}

/** A snapshot to be resumed. */
export interface Resumed {
  readonly record: SnapshotRecord;
  readonly snapshot: Snapshot;
  /** By number of the tracker. */
  readonly members: ReadonlyMap<number, ResumedMember>;
  /** Trackers whose areas were given up: their images are lost, but not those of others. */
  readonly givenUp: ReadonlySet<number>;
  /** Slots that the maps name, and the slot of the mark. */
  readonly slots: readonly number[];
}

/** Without `snapshot`: it was not complete, or its maps cannot be used. */
export type Found = Resumed | { readonly record: SnapshotRecord };

/** What resuming one snapshot needs to know of the others. */
export interface Resuming {
  readonly fronts: Fronts;
  /** Resolves when the fronts serve, except for late ones. */
  readonly serving: Promise<unknown>;
  /** Resolves when all fronts are known, including those that only the medium has. */
  readonly restored: Promise<void>;
  /** All records that were found. */
  readonly all: readonly SnapshotRecord[];
  readonly listener: RecoveryListener;
}

/** A device in the record, with its open map. */
interface FoundMember {
  readonly member: MemberRecord;
  readonly area: MemberArea;
}

export function lookThroughAll(
  context: DriverContext,
  records: readonly SnapshotRecord[],
  geometries: ReadonlyMap<number, TrackerGeometry>,
): Promise<Found[]> {
  return Promise.all(records.map((record) => findAreas(context, record, geometries)));
}

async function findAreas(
  context: DriverContext,
  record: SnapshotRecord,
  geometries: ReadonlyMap<number, TrackerGeometry>,
): Promise<Found> {
  if (record.state !== "created" && record.state !== "taken") return { record };
  const found: FoundMember[] = [];
  try {
    for (const member of record.members) {
      const id = areaIdOf(member);
      if (id === undefined || member.map === null) continue;
      found.push({ member, area: { id, map: context.state.openMap(member.map) } });
    }
    const areas: (FoundArea | undefined)[] = [];
    for (const { member, area } of found) {
      areas.push(await lookThrough(area, geometries.get(member.tracker)));
    }
    const snapshot = new Snapshot(context, record, true);
    const members = new Map<number, ResumedMember>();
    const givenUp = new Set<number>();
    for (const [index, { member, area }] of found.entries()) {
      const used = areas[index];
      if (used === undefined) {
        givenUp.add(member.tracker);
        continue;
      }
      const { figures, faultErrno } = used;
      const image = await leftImage(context, member);
      const imageDepth = image?.queueDepth ?? 0;
      const asleep = snapshot.sleepingArea(area, record.members.length);
      const sleeping = { ...asleep, imageDepth, figures };
      members.set(member.tracker, { area, sleeping, image: image?.id, faultErrno });
    }
    for (const { member, area } of found) {
      // Its file is unclaimed when the record is written without it.
      if (givenUp.has(member.tracker)) context.state.closeMap(area.map);
    }
    const slots = areas.flatMap((one) => one?.used ?? []);
    if (record.storeMark !== undefined) slots.push(record.storeMark.slot);
    return { record, snapshot, members, givenUp, slots };
  } catch (error) {
    context.logger.error({ snapshot: record.id, err: error }, "snapshot is lost");
    for (const { area } of found) closeSync(area.map.fd);
    return { record };
  }
}

/** Undefined, too, if the kernel does not say: it is made again, and what is left of it is removed as an orphan. */
async function leftImage({ frontend, logger }: DriverContext, { image }: MemberRecord) {
  try {
    return await frontend.leftImage(image);
  } catch (error) {
    logger.error({ image, err: error }, "an image cannot be looked up: it is made again");
    return undefined;
  }
}

/**
 * Opens the stores, adds the recovered trackers to their snapshot again, and resumes its images. Returns undefined if
 * the snapshot is lost; then nothing of it is left.
 */
export async function resumeSnapshot(
  context: DriverContext,
  resumed: Resumed,
  resuming: Resuming,
): Promise<Snapshot | undefined> {
  const { record, snapshot } = resumed;
  const { fronts, serving, restored, listener } = resuming;
  listener.snapshot(snapshot);
  const opening = serving.then(() => openStores(context, resumed));
  const joining = record.members.map(async (member) => {
    const { tracker: id } = member;
    if (!fronts.has(id)) await restored;
    const joined = await join(context, resumed, member, await fronts.get(id));
    listener.progressed();
    return joined;
  });
  try {
    await Promise.all([
      opening,
      ...joining.map(async (joined) => {
        const member = await joined;
        await opening;
        if (member !== undefined) await wake(context, resumed, member, serving);
        listener.progressed();
      }),
    ]);
    snapshot.membersReattached();
    faultPoint("recover.rejoined");
    const saved = saveFound(context, snapshot);
    if (snapshot.state === "taken") await resumeImages(context, snapshot);
    await saved;
    return snapshot;
  } catch (error) {
    const text = `snapshot is lost: ${(error as Error).message}`;
    context.logger.error({ snapshot: record.id, err: error }, text);
    await lose(context, resumed, joining, resuming.all);
    listener.lost(snapshot);
    return undefined;
  }
}

/** Bounded by how long a write may wait. */
async function openStores(
  context: DriverContext,
  { snapshot, slots, record }: Resumed,
): Promise<void> {
  const late = () => {
    const paths = record.stores.map(({ path }) => path).join(", ");
    const text = `the stores did not answer in ${STORES_PATIENCE_MS} ms: ${paths}`;
    return new DiffStorageError("STORE_TIMEOUT", text);
  };
  const onOpened = async (stores: readonly Store[]) => {
    await assertMarked(record, stores);
    await beginWithSealed(context, snapshot, record, stores);
  };
  const open = () => snapshot.openStorage(slots, { onOpened });
  await openStoresFenced(() => bounded(open(), STORES_PATIENCE_MS, late));
  faultPoint("recover.stores-opened");
}

/** Undefined if the device's image is lost; then nothing of it is left. */
async function join(
  context: DriverContext,
  { record, snapshot, members, givenUp }: Resumed,
  { tracker: id, image, journal, errorCode = -EIO }: MemberRecord,
  tracker: Tracker | undefined,
): Promise<Member | undefined> {
  const its = members.get(id);
  const isWhole = !givenUp.has(id) && (its === undefined || tracker?.hasOldArea === true);
  if (tracker !== undefined && isWhole) {
    const member = snapshot.addMember(tracker, its?.area, its?.image);
    // Without an area nothing can be lost; another loss is on record already.
    if (its === undefined || hasLost(member)) return member;
    const { area, faultErrno, sleeping } = its;
    if (faultErrno !== 0) snapshot.fault(tracker, area.id, faultErrno);
    // A loss from before a reboot: it was reported, and is in the journal from which the map was made.
    else if ((sleeping.figures?.lostBlocks ?? 0) > 0) {
      tracker.recordLoss({ errorCode, area: area.id, isKept: true });
    }
    return member;
  }
  const device = tracker?.device;
  context.logger.error({ snapshot: record.id, device }, "the image of a device is lost");
  if (typeof journal === "string") await removeJournal(context, journal);
  // Its file is unclaimed when the record is written without it: a daemon that is killed before finds it dropped.
  if (its !== undefined) context.state.closeMap(its.area.map);
  if (image !== null) await context.frontend.removeImage(image);
  return undefined;
}

/** The device is written without copies from now on, and no daemon may trust its image on the medium. */
async function removeJournal({ persistent, logger }: DriverContext, uuid: string): Promise<void> {
  const { tried, done } = forgetAreaForGood(persistent, uuid);
  done.catch(() => undefined);
  try {
    await bounded(tried, FORGETTING_PATIENCE_MS, noAnswer);
  } catch (error) {
    const text =
      "the journal of a lost image is not removed yet: after a power cut it could come back; retrying";
    logger.error({ err: error }, text);
  }
}

/** Starts the copies of a member's area. */
async function wake(
  context: DriverContext,
  { record, snapshot, members }: Resumed,
  member: Member,
  serving: Promise<unknown>,
): Promise<void> {
  const { tracker } = member;
  const its = members.get(tracker.id);
  if (its === undefined) return;
  const { area, sleeping } = its;
  await serving;
  const { journal } = record.members.find((one) => one.tracker === tracker.id) ?? {};
  if (typeof journal === "string" && snapshot.persistence.isOn) {
    try {
      const renewing = renewJournal(context, area);
      member.journal = await bounded(renewing, JOURNAL_RENEWAL_PATIENCE_MS, noAnswer);
    } catch (error) {
      const why = `its journal is not written: ${(error as Error).message}`;
      await forgetPersistent(context, record);
      await snapshot.persistence.giveUp([...snapshot.members.values()], why);
    }
  }
  await snapshot.cuts.reportAll(tracker, area.id);
  // If another member's journal has failed, now or before, this one must not be trusted either.
  if (typeof journal === "string" && !snapshot.persistence.isOn) {
    await snapshot.persistence.giveUp([member], "it is no longer persistent");
  }
  const kept = snapshot.persistence.isOn ? member.journal : undefined;
  await withAreaSyncs(snapshot.storage.stores, kept, async (syncs) => {
    // It may have been given up meanwhile.
    const waking = snapshot.wakingArea(sleeping, snapshot.persistence.isOn ? syncs : undefined);
    const request = { type: "wakeArea", tracker: tracker.id, area: waking } as const;
    await context.reactors.request(tracker.reactor, request);
  });
}

/** Makes a journal with the content of the map: nothing relies on what the dead daemon's journal says beyond that. */
async function renewJournal(
  context: DriverContext,
  { id, map }: MemberArea,
): Promise<AreaJournalFile> {
  const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
  try {
    await context.persistent.own();
    return await AreaJournalFile.create(context.persistent, id, DiffAreaMap.open(memory.buffer));
  } finally {
    memory.unmap();
  }
}

/**
 * The earlier daemon may have been killed between its two records of an add or a take. What users see of it from now on
 * outlives a power cut, unless the medium does not answer.
 */
async function saveFound({ logger }: DriverContext, { id, persistence }: Snapshot): Promise<void> {
  if (!persistence.isOn) return;
  try {
    await persistence.saved();
  } catch (error) {
    const text = "a power cut could still undo the last change of a snapshot";
    logger.error({ snapshot: id, err: error }, text);
  }
}

/** Old data is copied even if an image cannot be shown: the next daemon makes such an image. */
async function resumeImages(context: DriverContext, snapshot: Snapshot): Promise<void> {
  const members = [...snapshot.members.values()];
  if (members.length === 0) throw new Error("none of its devices exists any more");
  for (const member of members) {
    try {
      await resumeImage(context, snapshot, member);
    } catch (error) {
      if (member.area === undefined) throw error;
      const { device } = member.tracker;
      const text = `the image of ${device} is missing until the next start`;
      context.logger.error({ snapshot: snapshot.id, device, err: error }, text);
      member.imageNumber = undefined;
      snapshot.events.push(corrupted(member.tracker, ENODEV));
    }
  }
}

async function resumeImage(
  context: DriverContext,
  snapshot: Snapshot,
  member: Member,
): Promise<void> {
  const { imageNumber } = member;
  if (imageNumber !== undefined) {
    try {
      await recoverImage(context, snapshot, member);
      return;
    } catch (error) {
      const { device } = member.tracker;
      const text = "an image cannot be resumed: it is made again";
      context.logger.error({ snapshot: snapshot.id, device, err: error }, text);
      member.imageNumber = undefined;
      await context.frontend.removeImage(imageNumber);
    }
  }
  await openImage(context, snapshot, member);
}

/** Its writes continue without copies. First, no daemon may trust it on the medium any more. */
async function lose(
  context: DriverContext,
  { record, snapshot }: Resumed,
  joining: readonly Promise<Member | undefined>[],
  all: readonly SnapshotRecord[],
): Promise<void> {
  await forgetPersistent(context, record);
  const closing = joining.map(async (joined) => {
    const member = await joined;
    if (member === undefined) return;
    const { image, imageNumber } = member;
    await closeMember(context, member);
    if (image === undefined) await context.frontend.removeImage(imageNumber ?? -1);
    await member.journal?.close();
  });
  for (const closed of await Promise.allSettled(closing)) {
    if (closed.status === "fulfilled") continue;
    const { reason } = closed;
    context.logger.error({ snapshot: record.id, err: reason }, "not all of a snapshot is closed");
  }
  await snapshot.closeStorage();
  await snapshot.persistence
    .unlessHung("the record of a lost snapshot is not removed", () => snapshot.persistence.forget())
    .catch(() => undefined);
  snapshot.events.close();
  await discard(context, record, all);
}
