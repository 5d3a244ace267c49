/**
 * Take: one instant for all members, on all their reactors.
 *
 * ```
 *   prepare areas ─▶ freeze file systems ─▶ hold writes on every reactor, drain those in flight
 *                                                  │ all have acknowledged: this is the instant
 *                                                  ▼
 *   images ◀─ thaw ◀─ switch: CBT numbers, copy-on-write on, held writes continue
 * ```
 *
 * A reactor that has switched releases its writes while another still holds. That is harmless: nothing on the other has
 * changed since the instant, and copy-on-write is on before its next write. Any failure undoes everything: the snapshot
 * is as it was before.
 */

import { randomUUID } from "node:crypto";
import type { SnapshotTakeOptions } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import { DiffAreaMap, firstMapBytes } from "@blksnap/engine";
import { allOf } from "@blksnap/errors";
import type { DriverContext } from "../context.js";
import { AreaJournalFile } from "../records/area-journal-file.js";
import { StateFile } from "../records/file-names.js";
import { assertFront } from "../tracker/front-state.js";
import { assertSpliced } from "../tracker/splice-watch.js";
import type { Tracker } from "../tracker/tracker.js";
import { NO_LOSS } from "../tracker/tracker-record.js";
import { withAreaSyncs } from "./area-syncs.js";
import { canRename } from "./hidden-store.js";
import { holdAndSwitch, partsOf, rehearse } from "./instant.js";
import { closeMember, hasLost, type Member, openImage } from "./member.js";
import type { Snapshot } from "./snapshot.js";
import { markStore } from "./store-mark.js";
import { whileOpenToSync } from "./sync-all.js";

type Sync = () => Promise<void>;

/** Takes the snapshot. @throws ControlError; then the snapshot is "created" as before */
export async function takeSnapshot(
  context: DriverContext,
  snapshot: Snapshot,
  options: SnapshotTakeOptions = {},
): Promise<void> {
  const members = [...snapshot.members.values()];
  assertFreezes(context, options);
  for (const { tracker } of members) await growFirst(context, tracker);
  for (const { tracker } of members) await assertCapacity(context, snapshot, tracker);
  for (const { tracker } of members) assertFront(tracker);
  snapshot.beginTake();
  faultPoint("take.begun");
  try {
    for (const member of members) await prepareArea(context, snapshot, member);
    if (snapshot.persistence.isOn && !canRename(snapshot)) await markStore(context, snapshot);
    snapshot.save();
    faultPoint("take.areas-recorded");
    snapshot.stallUs = await whileOriginalsOpen(context, snapshot, (sync) =>
      context.freezes.run(() => switchAll(context, snapshot, sync, options)),
    );
    faultPoint("take.thawed");
    // Numbers that the caller gets must be on record.
    for (const { tracker } of members) await tracker.commitJournal();
    snapshot.takenAt = new Date().toISOString();
    for (const member of members) {
      // A loss before it had an area has ended no image; nor has the end of its front.
      assertSpliced(member.tracker);
      assertFront(member.tracker);
      if (!hasLost(member)) continue;
      throw new ControlError(
        "SNAPSHOT_CORRUPTED",
        `old data of ${member.tracker.device} was lost while the snapshot was taken`,
      );
    }
    // Together: the kernel takes a tenth of a second for each, mostly to wait. One that fails waits for the others.
    await allOf(members.map((member) => openImage(context, snapshot, member)));
    await snapshot.endTake();
    faultPoint("take.taken");
  } catch (error) {
    await undoTake(context, snapshot).catch((cause: unknown) => {
      const text =
        "a failed take is not undone yet: the next take, or the snapshot's end, retries that";
      context.logger.error({ snapshot: snapshot.id, err: cause }, text);
    });
    throw error;
  }
}

/**
 * Undoes a take that failed: the snapshot is "created" as before. If an area could not be closed, the snapshot stays
 * "taking", which the next daemon undoes, and this may be called again. @throws Error why an area is not closed
 */
export async function undoTake(context: DriverContext, snapshot: Snapshot): Promise<void> {
  const members = [...snapshot.members.values()];
  // No user knows of its images.
  if (snapshot.state === "taken") snapshot.enterBestEffort("taking");
  await snapshot.persistence.withdraw();
  try {
    await closeMembers(context, members);
  } catch (error) {
    // As long as an area may still be written, its journal and its slots must not be reused.
    if (members.some(({ area }) => area !== undefined)) throw error;
    const text = "a map of a take that failed stays until the next start";
    context.logger.warn({ snapshot: snapshot.id, err: error }, text);
  }
  for (const member of members) await forgetJournal(context, snapshot, member);
  snapshot.undoTake();
}

/** No record refers to it from here on: if the medium does not remove it now, the next daemon does. */
export async function forgetJournal(
  { logger }: DriverContext,
  { id, persistence }: Snapshot,
  member: Member,
): Promise<void> {
  try {
    await persistence.removeJournal(member);
  } catch (error) {
    const text = "the journal of a diff area may stay until the next start";
    logger.warn({ snapshot: id, err: error }, text);
  }
}

/** @throws ControlError FREEZE_FAILED */
function assertFreezes({ frontend }: DriverContext, options: SnapshotTakeOptions): void {
  if (options.requireFreeze !== true || frontend.kind === "ublk") return;
  const what = "fronts of this daemon are NBD exports: file systems on clients cannot be frozen";
  const hint = "Freeze at the client, as with fsfreeze, and take without --require-freeze";
  throw new ControlError("FREEZE_FAILED", what, { hint });
}

/** Ends the members' parts in the snapshot: images and copy-on-write. */
export async function closeMembers(
  context: DriverContext,
  members: readonly Member[],
): Promise<void> {
  // A retry must not meet a member that is still being closed.
  await allOf(members.map((member) => closeMember(context, member)));
}

/** What users have by now is in the snapshot: the check that notices it may come a moment later. */
async function growFirst({ logger }: DriverContext, tracker: Tracker): Promise<void> {
  const { device, front, geometry } = tracker;
  if (front.fixedWhy !== undefined || !front.isLive) return;
  const isLarger = (await tracker.presentCapacityBytes()) > geometry.capacityBytes;
  // A daemon before may have left the front smaller than its map.
  if (!isLarger && front.capacityBytes >= geometry.capacityBytes) return;
  await tracker.grow().catch((error: unknown) => {
    logger.warn({ device, err: error }, "the front has not grown before the take");
  });
}

/**
 * If the original has grown, and its front has not, the rest is out of reach; if it has shrunk, the rest cannot be read
 * any more.
 * @throws ControlError DEVICE_CAPACITY_CHANGED
 */
async function assertCapacity(
  { logger }: DriverContext,
  { id }: Snapshot,
  tracker: Tracker,
): Promise<void> {
  const { device, geometry } = tracker;
  const now = await tracker.presentCapacityBytes();
  const change = `${device} had ${geometry.capacityBytes} bytes when it was attached, now ${now}`;
  if (now < geometry.capacityBytes) throw new ControlError("DEVICE_CAPACITY_CHANGED", change);
  if (now > geometry.capacityBytes) {
    logger.warn({ snapshot: id }, `${change}: the rest is not in the snapshot`);
  }
}

async function prepareArea(
  context: DriverContext,
  snapshot: Snapshot,
  member: Member,
): Promise<void> {
  const { tracker } = member;
  tracker.recordLoss(NO_LOSS);
  const { geometry } = tracker;
  const id = randomUUID();
  const map = await context.state.createMap(
    StateFile.areaMap.name(snapshot.id, id),
    DiffAreaMap.byteLength(geometry),
    firstMapBytes(geometry),
  );
  const its = { id, map };
  member.area = its;
  faultPoint("take.map-made");
  if (snapshot.persistence.isOn) {
    member.journal = await AreaJournalFile.createInTime(context.persistent, id);
  }
  await withAreaSyncs(snapshot.storage.stores, member.journal, async (syncs) => {
    const area = await snapshot.areaSetup(its, snapshot.members.size, syncs);
    if (area.extents.length === 0) {
      throw new ControlError("STORE_FULL", "the diff storage has no space for the first slots");
    }
    const request = { type: "prepareArea", tracker: tracker.id, area } as const;
    await context.reactors.request(tracker.reactor, request);
  });
  faultPoint("take.area-prepared");
}

/** Freezes, holds, switches, thaws. Returns how long writers were held at most. */
async function switchAll(
  context: DriverContext,
  snapshot: Snapshot,
  syncOriginals: Sync,
  { requireFreeze = false }: SnapshotTakeOptions,
): Promise<number> {
  const { logger, holdTimeoutMs: holdMs } = context;
  const members = [...snapshot.members.values()];
  const freeze = context.freezing({ logger, holdMs, isRequired: requireFreeze });
  const parts = partsOf(members);
  await rehearse(context, parts);
  const whileHeld = async (): Promise<void> => {
    faultPoint("take.held");
    await syncOriginals();
  };
  try {
    const numbers = members.map(({ tracker }) => tracker.front.deviceNumber);
    const fronts = new Set(numbers.filter((number) => number !== ""));
    await freeze.freeze(fronts, context.freezeTimeoutMs);
    faultPoint("take.frozen");
    const stallUs = await whileNoneRotates(members, holdMs, () =>
      holdAndSwitch(context, parts, whileHeld),
    );
    faultPoint("take.switched");
    freeze.assertHeld();
    snapshot.fileSystems = freeze.report;
    return Math.round(stallUs);
  } finally {
    await freeze.thaw();
  }
}

/**
 * Journals are rotated before the instant or after it. Freezing may need rotations, because it writes a lot. A rotation
 * in progress is waited for while file systems are frozen.
 */
function whileNoneRotates<Value>(
  members: readonly Member[],
  timeoutMs: number,
  operation: () => Promise<Value>,
): Promise<Value> {
  let isLate = false;
  let timer: NodeJS.Timeout | undefined;
  const outcome = inTurn(members, () => {
    clearTimeout(timer);
    if (isLate) return Promise.reject(new Error("its caller no longer waits"));
    return operation();
  });
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      isLate = true;
      const why = "the journal of a tracker is being rewritten, which takes too long";
      reject(new ControlError("TAKE_FAILED", why, { errnoName: "ETIMEDOUT" }));
    }, timeoutMs);
  });
  return Promise.race([outcome, tooLate]).finally(() => clearTimeout(timer));
}

/** Runs the operation when it is its turn among the rotations of all members. */
function inTurn<Value>(
  [first, ...others]: readonly Member[],
  operation: () => Promise<Value>,
): Promise<Value> {
  if (first === undefined) return operation();
  return first.tracker.withoutRotation(() => inTurn(others, operation));
}

/**
 * Data that is only in the originals' write caches at the instant would be lost in a power cut, and a persistent
 * snapshot's image with it. Writes are held no longer than the bound, so syncing later would not help.
 */
async function whileOriginalsOpen<Value>(
  { holdTimeoutMs }: DriverContext,
  { persistence, members }: Snapshot,
  work: (syncOriginals: Sync) => Promise<Value>,
): Promise<Value> {
  if (!persistence.isOn) return work(async () => undefined);
  const originals = [...members.values()].map(({ tracker }) => tracker.backing);
  let isOpen = false;
  try {
    return await whileOpenToSync(originals, holdTimeoutMs, (sync) => {
      isOpen = true;
      return work(() => sync().catch((error) => Promise.reject(notSynced(error))));
    });
  } catch (error) {
    throw isOpen ? error : notSynced(error);
  }
}

function notSynced(error: unknown): ControlError {
  const { code: errnoName = "EIO", message } = error as NodeJS.ErrnoException;
  const what = `an original could not be synced: ${message}`;
  return new ControlError("TAKE_FAILED", what, { cause: error, errnoName });
}
