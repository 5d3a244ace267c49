/**
 * Users' operations on snapshots: create, add, take, destroy. The caller ensures that operations on one snapshot or
 * device run one at a time.
 */

import { stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import type {
  SnapshotCreateOptions,
  SnapshotCreateProgress,
  SnapshotCreateResponse,
  SnapshotTakeOptions,
  SnapshotTakeResponse,
} from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import { assertNoConflict, assertNotInUse } from "@blksnap/diff-storage";
import { isZoned, knownStackOf, type Overlap, overlapOf } from "@blksnap/linux-block";
import { bounded } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import type { Registry } from "../registry.js";
import { assertCreated } from "../snapshot/assert-created.js";
import { closeImage } from "../snapshot/member.js";
import { completePolicy } from "../snapshot/overflow.js";
import { sealStores } from "../snapshot/seal-stores.js";
import { Snapshot } from "../snapshot/snapshot.js";
import { isWithoutPath } from "../snapshot/store-record.js";
import { closeMembers, forgetJournal, takeSnapshot, undoTake } from "../snapshot/take.js";
import { STORE_OPEN_TIMEOUT_MS } from "../time-limits.js";
import { ownPlaces } from "../tracker/own-places.js";
import { assertSpliced } from "../tracker/splice-watch.js";
import type { Tracker } from "../tracker/tracker.js";
import type { TrackerOperations } from "./tracker-operations.js";

/** statfs(2): TMPFS_MAGIC, RAMFS_MAGIC. */
const MEMORY_FILE_SYSTEMS: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/** A device name that depends on the order in which the kernel found the devices. */
const KERNEL_NAME = /^\/dev\/[^/]+$/;

export class SnapshotOperations {
  readonly #context: DriverContext;
  readonly #registry: Registry;
  readonly #trackers: TrackerOperations;

  constructor(context: DriverContext, registry: Registry, trackers: TrackerOperations) {
    this.#context = context;
    this.#registry = registry;
    this.#trackers = trackers;
  }

  /**
   * Attaches devices that are not tracked yet, and detaches them again if it fails.
   * @param signal aborted when the caller has gone, and would not learn of the snapshot
   * @param onProgress receives the progress of allocating the stores
   */
  async create(
    options: SnapshotCreateOptions,
    signal?: AbortSignal,
    onProgress?: (progress: SnapshotCreateProgress) => void,
  ): Promise<SnapshotCreateResponse> {
    const onOverflow = completePolicy(options.onOverflow);
    const { persistent = false, releasableImages = false } = options;
    const isNbd = this.#context.frontend.kind === "nbd";
    if (persistent) this.#context.persistent.assertAnswers();
    const attached: Tracker[] = [];
    const members = new Set<Tracker>();
    try {
      for (const device of options.devices) {
        const known = await this.#registry.findTracker(device);
        if (known !== undefined) this.#registry.assertFree(known);
        if (known !== undefined && persistent) assertPersistent(known);
        const tracker = known ?? (await this.#trackers.attach(device, { persistent }));
        if (known === undefined) attached.push(tracker);
        if (members.has(tracker)) {
          const hint = "Nothing was created; give each device once";
          throw new ControlError("DEVICE_ALREADY_IN_SNAPSHOT", `${device} is given twice`, {
            hint,
          });
        }
        members.add(tracker);
      }
      await this.#assertStoresDisjoint(options.stores);
      if (persistent) await this.#assertMedia(options.stores);
      const alignments = [...members].map(({ geometry }) => geometry.logicalBlockBytes);
      const chunkShifts = [...members].map(({ geometry }) => geometry.chunkShift);
      const parameters = {
        stores: options.stores,
        limitBytes: options.limitBytes,
        alignmentBytes: alignments.length === 0 ? 512 : Math.min(...alignments),
        slotBytes: 2 ** Math.max(this.#context.parameters.chunkMinimumShift, ...chunkShifts),
        onOverflow,
        persistent,
        // A client can easily write to the wrong export: addresses are long and look alike.
        readOnlyImages: releasableImages || (options.readOnlyImages ?? isNbd),
        releasableImages,
        signal,
        onProgress,
      };
      const snapshot = await Snapshot.create(this.#context, parameters, members);
      await this.#saved(snapshot);
      if (signal?.aborted) await this.#undo(snapshot);
      this.#registry.snapshots.set(snapshot.id, snapshot);
      return { id: snapshot.id, attached: attached.map(({ device }) => device) };
    } catch (error) {
      for (const tracker of attached) await this.#detachAgain(tracker);
      throw error;
    }
  }

  async add(id: string, device: string): Promise<Tracker> {
    const snapshot = this.#registry.snapshot(id);
    assertCreated(snapshot);
    const known = await this.#registry.findTracker(device);
    if (known !== undefined) this.#registry.assertFree(known, snapshot);
    const persistent = snapshot.persistence.isOn;
    if (known !== undefined && persistent) assertPersistent(known);
    const tracker = known ?? (await this.#trackers.attach(device, { persistent }));
    try {
      assertFits(snapshot, tracker);
      const paths = snapshot.stores.map(({ path }) => path);
      await this.#assertStoresDisjoint(paths);
      await snapshot.allowAlignment(tracker.geometry.logicalBlockBytes);
      snapshot.addMember(tracker);
      snapshot.save();
      await snapshot.persistence.saved();
    } catch (error) {
      if (snapshot.members.delete(tracker.id)) snapshot.saveIfPossible();
      if (known === undefined) await this.#detachAgain(tracker);
      throw error;
    }
    faultPoint("add.recorded");
    return tracker;
  }

  async take(id: string, options: SnapshotTakeOptions = {}): Promise<SnapshotTakeResponse> {
    const snapshot = this.#registry.snapshot(id);
    if (snapshot.state === "taking") await undoTake(this.#context, snapshot);
    assertCreated(snapshot);
    if (snapshot.members.size === 0) {
      throw new ControlError("SNAPSHOT_EMPTY", `snapshot ${id} has no device`);
    }
    for (const { tracker } of snapshot.members.values()) assertSpliced(tracker);
    await takeSnapshot(this.#context, snapshot, options);
    const { stallUs } = snapshot;
    this.#context.logger.info({ snapshot: id, stallUs }, "snapshot taken");
    return {
      id,
      stall_us: stallUs ?? 0,
      images: [...snapshot.members.values()].map(({ tracker, image }) => ({
        device: tracker.device,
        image: image?.path ?? "",
      })),
      file_systems: [...snapshot.fileSystems],
    };
  }

  /** Never fails, as the caller gets the earlier error: a device that stays attached is logged. */
  async #detachAgain(tracker: Tracker): Promise<void> {
    try {
      await this.#trackers.detach(tracker, {});
    } catch (error) {
      const { device } = tracker;
      this.#context.logger.warn({ device, err: error }, "attached for this, and stays attached");
    }
  }

  /** After a failure the caller can try again. @throws ControlError PERSISTENT_STATE_UNUSABLE: nothing has ended */
  async destroy(snapshot: Snapshot): Promise<void> {
    await withdraw(snapshot);
    faultPoint("destroy.withdrawn");
    snapshot.enterBestEffort("destroying");
    faultPoint("destroy.begun");
    // Readers that wait for events learn of it at once, however long the rest takes.
    snapshot.events.close();
    const members = [...snapshot.members.values()];
    await closeMembers(this.#context, members);
    faultPoint("destroy.members-closed");
    for (const member of members) await forgetJournal(this.#context, snapshot, member);
    await snapshot.closeStorage();
    faultPoint("destroy.stores-closed");
    await this.#forget(snapshot);
    this.#registry.snapshots.delete(snapshot.id);
    this.#context.logger.info({ snapshot: snapshot.id }, "snapshot destroyed");
  }

  /**
   * At the daemon's end: leaves a persistent snapshot as it is on the medium. Its images go first, then its devices; so
   * nothing is written that it would have to record.
   */
  async suspend(snapshot: Snapshot): Promise<void> {
    // A record that could not be written earlier may succeed now.
    snapshot.saveIfPossible();
    await snapshot.persistence.saved();
    const members = [...snapshot.members.values()];
    // A daemon that finds this half done recreates the images, and must not expect any.
    for (const member of members) member.imageNumber = undefined;
    snapshot.saveIfPossible();
    faultPoint("suspend.images-forgotten");
    for (const member of members) await closeImage(this.#context, member);
    faultPoint("suspend.images-stopped");
    for (const { tracker } of members) {
      await this.#trackers.detach(tracker, { attachAgain: true, giveUp: true });
    }
    if (snapshot.state === "taken") await sealStores(snapshot, this.#context.logger);
    snapshot.saveIfPossible();
    faultPoint("suspend.stores-sealed");
    await snapshot.persistence.suspend(members);
    faultPoint("suspend.journals-complete");
    // From here on only the medium has it: its maps are not missed.
    snapshot.forget();
    for (const { area } of members) {
      if (area !== undefined) await this.#context.state.removeMap(area.map);
    }
    await snapshot.closeStorage({ keep: true });
    this.#registry.snapshots.delete(snapshot.id);
    this.#context.logger.info({ snapshot: snapshot.id }, "snapshot suspended");
  }

  /** @throws ControlError ABORTED */
  async #undo(snapshot: Snapshot): Promise<never> {
    await snapshot.closeStorage();
    snapshot.enterBestEffort("destroying");
    await this.#forget(snapshot).catch((error: unknown) => {
      this.#context.logger.error({ snapshot: snapshot.id, err: error }, "its record stays");
    });
    throw new ControlError("ABORTED", "snapshot_create was cancelled before the answer was sent");
  }

  /** A snapshot whose record cannot be written is not created. */
  async #saved(snapshot: Snapshot): Promise<void> {
    try {
      await snapshot.persistence.saved();
    } catch (error) {
      await snapshot.closeStorage();
      snapshot.enterBestEffort("destroying");
      // The record may still reach the medium.
      await this.#forget(snapshot);
      throw error;
    }
  }

  /**
   * Forgets the snapshot. If the medium does not answer, the record here stays until it does: a next daemon would
   * otherwise take the snapshot up again from the medium.
   */
  async #forget(snapshot: Snapshot): Promise<void> {
    const { events, persistence } = snapshot;
    events.close();
    const text = "its record is not yet removed from the medium";
    const danger = "a power cut before that would bring it back";
    const how = persistence.mayComeBack ? "with wrong images" : "as it was before its take";
    const whole = persistence.mayBeKept ? `${text}: ${danger}, ${how}` : text;
    await persistence.unlessHung(whole, async () => {
      await persistence.forget();
      snapshot.forget();
    });
  }

  /**
   * Data in memory is lost with the power, and "sdc" can be another disk afterwards.
   * @throws ControlError STORE_NOT_PERSISTENT, STORE_FAILED
   */
  async #assertMedia(stores: readonly string[]): Promise<void> {
    for (const path of stores) {
      if (KERNEL_NAME.test(path) && !isWithoutPath(path)) {
        const what = `${path} can be another disk after a reboot`;
        const hint = "Name it by /dev/disk/by-id/... or /dev/mapper/...";
        throw new ControlError("STORE_NOT_PERSISTENT", what, { hint });
      }
      const inMemory =
        isWithoutPath(path) || MEMORY_FILE_SYSTEMS.has((await this.#typeOf(path)) ?? 0);
      if (!inMemory) continue;
      const what = `${path} is memory: a persistent snapshot needs a store on a disk`;
      throw new ControlError("STORE_NOT_PERSISTENT", what);
    }
  }

  /**
   * As typeOf(), with a check that the path answers: otherwise it would keep a thread.
   * @throws ControlError STORE_FAILED
   */
  async #typeOf(path: string): Promise<number | undefined> {
    const failed = ({ message }: Error): ControlError =>
      new ControlError("STORE_FAILED", `${path}: ${message}`, { errnoName: "ETIMEDOUT" });
    try {
      await this.#context.storeSystem.assertAnswers?.(path);
    } catch (error) {
      throw failed(error as Error);
    }
    return bounded(typeOf(path), STORE_OPEN_TIMEOUT_MS, () => failed(new Error("no answer")));
  }

  /** Two stores must not share bytes. A store named twice is locked already. @throws STORE_BUSY */
  async #assertDistinct(stores: readonly string[]): Promise<void> {
    const { topology, snapshots } = this.#registry;
    const others = ownPlaces([], snapshots.values()).filter(
      ({ at }) => typeof at !== "string" || !stores.includes(at),
    );
    const seen = others.map(({ what, at }) => ({ what, stack: knownStackOf(at, topology) }));
    for (const path of stores.filter((store) => !isWithoutPath(store))) {
      const stack = knownStackOf(path, topology);
      for (const other of seen) {
        const overlap = overlapOf(await stack, await other.stack);
        if (overlap === undefined || isFirstOfBoth(overlap)) continue;
        const text = `the bytes of ${path} are those of ${other.what} (${overlap.other.chain.join(" → ")})`;
        throw new ControlError("STORE_BUSY", text);
      }
      seen.push({ what: `the store ${path}`, stack });
    }
  }

  /** @throws ControlError STORE_ON_DEVICE; DiffStorageError STORE_ON_MEMBER, STORE_BUSY */
  async #assertStoresDisjoint(stores: readonly string[]): Promise<void> {
    const places = this.#registry.tracked.map(({ places: [original] }) => original);
    const { topology } = this.#registry;
    for (const path of stores) {
      if (isWithoutPath(path)) continue;
      await assertNoConflict(path, places, topology);
      const own = await this.#registry.ownDeviceBeneath(path);
      if (own !== undefined) {
        const what = `the store ${path} lies on ${own.path}, ${own.how}`;
        throw new ControlError("STORE_ON_DEVICE", what);
      }
      await assertNotInUse(path, topology);
      const { blockDevice } = await this.#context.blockDevices.lookUp(path);
      if (blockDevice === undefined || !isZoned(blockDevice)) continue;
      const what = `the store ${path} is a zoned disk, which accepts only sequential writes`;
      throw new ControlError("STORE_INVALID", what, { hint: "Give a disk without zones" });
    }
    await this.#assertDistinct(stores);
  }
}

/** @throws ControlError PERSISTENT_STATE_UNUSABLE */
async function withdraw({ id, persistence, members }: Snapshot): Promise<void> {
  try {
    await persistence.withdraw([...members.values()]);
  } catch (error) {
    const what = `snapshot ${id} is not destroyed, because that cannot be recorded: ${(error as Error).message}`;
    const hint = persistence.isOn
      ? "It continues as before; destroy it again when that disk answers. Until then, a power cut may end it"
      : "It continues; until its record is removed, a power cut brings it back with wrong images. Destroy it again to end it anyway";
    throw new ControlError("PERSISTENT_STATE_UNUSABLE", what, { cause: error, hint });
  }
}

function isFirstOfBoth({ one, other }: Overlap): boolean {
  return one.chain.length === 1 && other.chain.length === 1;
}

/** @throws ControlError TRACKER_NOT_PERSISTENT */
function assertPersistent(tracker: Tracker): void {
  if (tracker.uuid !== undefined) return;
  const what = `${tracker.device} is not a persistent tracker`;
  throw new ControlError("TRACKER_NOT_PERSISTENT", what);
}

/** File system type of a path; problems with the path are reported when it is opened. */
async function typeOf(path: string): Promise<number | undefined> {
  try {
    const found = await stat(path);
    return found.isBlockDevice() ? undefined : (await statfs(path)).type;
  } catch {
    return (await statfs(dirname(path)).catch(() => undefined))?.type;
  }
}

/** @throws ControlError CHUNK_OVER_SLOT if the device's chunks do not fit into the slots */
function assertFits({ id, slotBytes }: Snapshot, { device, geometry }: Tracker): void {
  const chunkBytes = 2 ** geometry.chunkShift;
  if (chunkBytes <= slotBytes) return;
  throw new ControlError(
    "CHUNK_OVER_SLOT",
    `${device} has chunks of ${chunkBytes} bytes, the slots of snapshot ${id} have ${slotBytes}`,
  );
}
