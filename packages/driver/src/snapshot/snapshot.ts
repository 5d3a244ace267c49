/**
 * A snapshot: its members, its diff storage, its events. The instant of take is in take.ts, recovery after a crash in
 * recovery/resume.ts.
 *
 * ```
 *   created ──take──▶ taking ──▶ taken ──destroy──▶ destroying ──▶ gone
 *      ▲                │
 *      └─── rolled back ┘
 * ```
 *
 * Each state is on record before it is acted on, so that a new daemon can finish or undo it.
 */

import type { FileSystemFreeze, OverflowPolicy } from "@blksnap/api";
import type {
  AreaId,
  AreaSetup,
  LogNeed,
  SleepingArea,
  SlotUser,
  WakingArea,
} from "@blksnap/data-plane";
import { faultPoint, SlotServer } from "@blksnap/data-plane";
import {
  DiffStorage,
  type DiffStorageEvent,
  type DiffStorageOptions,
  type Extent,
} from "@blksnap/diff-storage";
import { errnoName } from "@blksnap/errors";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import type { SnapshotRecord, StoreMark, StoreRecord } from "../records/records.js";
import { GATHER_TIMEOUT_MS } from "../time-limits.js";
import type { Tracker } from "../tracker/tracker.js";
import { LEGACY_SLOT_BYTES, sleepingArea } from "./area-setup.js";
import type { AreaSyncs } from "./area-syncs.js";
import { changeRecord } from "./change-record.js";
import { corrupted, SnapshotEvents } from "./events.js";
import { fillReporter } from "./fill-reporter.js";
import { hideStore } from "./hidden-store.js";
import { HungStores } from "./hung-stores.js";
import type { Member, MemberArea } from "./member.js";
import { memberRecord } from "./member-record.js";
import { newRecord, type OpenStorageOptions, type SnapshotOptions } from "./new-record.js";
import { completePolicy } from "./overflow.js";
import { SnapshotPersistence } from "./snapshot-journals.js";
import { StoreCuts } from "./store-cuts.js";
import { storesOpened, storesToOpen } from "./store-location.js";

export type { Member } from "./member.js";
export type { SnapshotOptions } from "./new-record.js";

export class Snapshot {
  readonly id: string;
  readonly createdAt: string;
  readonly limitBytes: number;
  readonly slotBytes: number;
  readonly onOverflow: OverflowPolicy;
  readonly events: SnapshotEvents;
  readonly members: Map<number, Member> = new Map();
  stores: readonly StoreRecord[];
  storeMark: StoreMark | undefined;
  takenAt: string | null;
  stallUs: number | null;
  readonly readOnlyImages: boolean;
  readonly releasableImages: boolean;
  /** An earlier daemon took it. */
  readonly isResumed: boolean;
  /** What the take did to the file systems on the members. */
  fileSystems: readonly FileSystemFreeze[];
  readonly persistence: SnapshotPersistence;
  readonly cuts: StoreCuts;
  readonly hungStores: HungStores = new HungStores();
  #state: SnapshotRecord["state"];
  #isReattaching: boolean;
  #storage: DiffStorage | undefined;
  #isClosed = false;
  #slotServer: SlotServer | undefined;
  readonly #areas = new Set<AreaId>();
  /** Slots granted during a take, which are freed if it fails; undefined at other times. */
  #grantedDuringTake: Set<number> | undefined;
  #alignmentBytes: number;
  readonly #context: DriverContext;

  /** @param isReattaching for a recovered snapshot: its record stays unchanged until membersReattached() */
  constructor(context: DriverContext, record: SnapshotRecord, isReattaching = false) {
    this.#context = context;
    this.#isReattaching = isReattaching;
    this.isResumed = isReattaching && record.state === "taken";
    this.id = record.id;
    this.createdAt = record.createdAt;
    this.takenAt = record.takenAt;
    this.stallUs = record.stallUs;
    this.releasableImages = record.releasableImages ?? false;
    this.readOnlyImages = this.releasableImages || (record.readOnlyImages ?? false);
    this.fileSystems = record.fileSystems ?? [];
    this.limitBytes = record.limitBytes;
    this.slotBytes = record.slotBytes ?? LEGACY_SLOT_BYTES;
    this.onOverflow = completePolicy(record.onOverflow);
    this.stores = record.stores;
    this.storeMark = record.storeMark;
    this.#alignmentBytes = record.alignmentBytes;
    this.#state = record.state;
    const hide = () => hideStore(context, this);
    this.persistence = new SnapshotPersistence(context, record, hide);
    const left = isReattaching ? record : undefined;
    const save = () => this.#recordCuts();
    this.cuts = new StoreCuts({ ...context, snapshot: this.id, members: this.members, left, save });
    this.events = new SnapshotEvents(record, () => this.saveIfPossible());
  }

  /**
   * Opens the stores of a new snapshot. The next daemon undoes it unless it is on record as created with all its
   * devices, because no caller knows of it yet.
   * @throws DiffStorageError; ControlError OUT_OF_MEMORY
   */
  static async create(
    context: DriverContext,
    options: SnapshotOptions,
    trackers: Iterable<Tracker> = [],
  ): Promise<Snapshot> {
    const snapshot = new Snapshot(context, await newRecord(options));
    snapshot.save();
    faultPoint("create.recorded");
    try {
      await snapshot.openStorage(undefined, options);
      faultPoint("create.stores-opened");
      for (const tracker of trackers) snapshot.addMember(tracker);
      snapshot.#recordState("created");
      faultPoint("create.created");
      return snapshot;
    } catch (error) {
      await snapshot.closeStorage();
      snapshot.forget();
      throw error;
    }
  }

  get state(): SnapshotRecord["state"] {
    return this.#state;
  }

  /** Records the next state, before it is acted on. @throws ControlError OUT_OF_MEMORY; then the state is unchanged */
  #recordState(state: SnapshotRecord["state"]): void {
    const before = this.#state;
    this.#state = state;
    try {
      this.save();
    } catch (error) {
      this.#state = before;
      throw error;
    }
  }

  get hasStorage(): boolean {
    return this.#storage !== undefined;
  }

  get storage(): DiffStorage {
    if (this.#storage === undefined) throw new Error(`snapshot ${this.id} has no storage`);
    return this.#storage;
  }

  /** Opens the stores; with `recoverSlots`, those that an earlier daemon has left. */
  async openStorage(
    recoverSlots?: Iterable<number>,
    { signal, onProgress, onOpened }: OpenStorageOptions = {},
  ): Promise<void> {
    const options: DiffStorageOptions = {
      stores: await storesToOpen(this.stores, recoverSlots !== undefined, this.#context.state.path),
      limitBytes: this.limitBytes,
      portionBytes: Math.max(this.#context.portionBytes, 2 * this.slotBytes),
      slotBytes: this.slotBytes,
      requiredAlignmentBytes: this.#alignmentBytes,
      system: this.#context.storeSystem,
      events: { push: (event) => this.#onStorageEvent(event) },
      onFill: fillReporter(this.#context.logger, this, onProgress),
      onCut: this.cuts.note,
      ...(signal && { signal }),
      ...(onOpened && { onOpened }),
      ...(recoverSlots && { recoverSlots }),
    };
    const storage = await DiffStorage.open(options);
    if (this.#isClosed) return void (await storage.close({ keepNamedFiles: true }));
    this.#storage = storage;
    this.stores = storesOpened(this.stores, storage.stores);
    this.#slotServer = new SlotServer({
      storage: this.#storage,
      send: (reactor, message) => this.#context.reactors.send(reactor, message),
      isActive: ({ area }) => this.hasArea(area),
      gather: (user) => this.#gatherSlots(user),
      onGrant: (extent) => this.#lend(extent),
    });
  }

  /** Prepares the stores for a new member with this block size. @throws DiffStorageError */
  async allowAlignment(bytes: number): Promise<void> {
    await this.storage.allowAlignment(bytes);
    this.#alignmentBytes = Math.min(this.#alignmentBytes, bytes);
  }

  /** Closes the stores; removes what was made for this snapshot, unless `keep`. */
  async closeStorage({ keep = false }: { keep?: boolean } = {}): Promise<void> {
    this.#isClosed = true;
    this.#slotServer?.close();
    await this.#storage?.close({ keepNamedFiles: keep });
    this.#storage = undefined;
  }

  /** All remaining members have been added again. */
  membersReattached(): void {
    this.#isReattaching = false;
    this.cuts.membersReattached();
    this.saveIfPossible();
  }

  /** Writes the record. */
  save(): void {
    // Events of its stores come before its members: without these, the record would be that of a lost snapshot.
    if (this.#isReattaching) return;
    const record: SnapshotRecord = {
      ...{ id: this.id, state: this.#state, createdAt: this.createdAt },
      ...{ takenAt: this.takenAt, stallUs: this.stallUs, limitBytes: this.limitBytes },
      ...{ alignmentBytes: this.#alignmentBytes, releasableImages: this.releasableImages },
      ...{ slotBytes: this.slotBytes, onOverflow: this.onOverflow },
      ...this.persistence.record,
      readOnlyImages: this.readOnlyImages && !this.releasableImages,
      ...{ fileSystems: this.fileSystems, stores: this.stores },
      ...(this.storeMark && { storeMark: this.storeMark }),
      ...this.cuts.record,
      members: [...this.members.values()].map((one) => memberRecord(one, this.persistence.isOn)),
      ...this.events.record,
    };
    this.#context.state.writeRecord(StateFile.snapshotRecord.name(this.id), record);
    this.persistence.save(record, [...this.members.values()]);
  }

  /** For changes that must not fail an operation: without room, the old record stays. */
  saveIfPossible(): void {
    try {
      this.save();
    } catch (error) {
      this.#context.logger.warn({ snapshot: this.id, err: error }, "record is not up to date");
    }
  }

  /** A snapshot that ends does not need it, and may have no record any more. */
  #recordCuts(): void {
    if (this.events.isClosed) return;
    if (this.#isReattaching) changeRecord(this.#context, this.id, this.cuts.record);
    else this.saveIfPossible();
  }

  /**
   * Returns to "taking" or "created", or proceeds to "destroying", even without room for the record. The old record
   * leads the next daemon to the same result: a take that did not end, or a snapshot without its maps. Images that it
   * names may be other devices by then (discard.ts).
   */
  enterBestEffort(state: "created" | "taking" | "destroying"): void {
    this.#state = state;
    this.saveIfPossible();
  }

  /** Removes the record: the snapshot does not exist any more. */
  forget(): void {
    this.events.close();
    this.#context.state.removeRecord(StateFile.snapshotRecord.name(this.id));
    faultPoint("destroy.record-removed");
  }

  addMember(tracker: Tracker, area?: MemberArea, imageNumber?: number): Member {
    const member: Member = {
      tracker,
      area,
      imageNumber,
      ...{ image: undefined, hasEarlyEnd: false, imageLink: undefined },
      journal: undefined,
      lateAreas: new Set(),
    };
    this.members.set(tracker.id, member);
    return member;
  }

  /** How a reactor has to use the storage for one device, with its first slots. */
  async areaSetup(its: MemberArea, memberCount: number, syncs?: AreaSyncs): Promise<AreaSetup> {
    const area = this.wakingArea(this.sleepingArea(its, memberCount), syncs);
    const extent = await this.storage.allocateStockWhenReady(area.wantedSlots);
    if (extent !== "full") this.#lend(extent);
    return { ...area, extents: extent === "full" ? [] : [extent.firstSlot, extent.count] };
  }

  sleepingArea(its: MemberArea, memberCount: number): SleepingArea {
    const area = sleepingArea(its, memberCount, this);
    this.#areas.add(area.id);
    return area;
  }

  wakingArea(area: SleepingArea, syncs?: AreaSyncs): WakingArea {
    return { ...area, storeFds: this.storage.stores.map(({ fd }) => fd), ...syncs };
  }

  /** A reactor's device needs slots: answers when there are some, or there will be none for now. */
  async serveSlots({ id, reactor }: Tracker, area: AreaId, wanted: number): Promise<void> {
    await this.#slotServer?.serve({ tracker: id, area, reactor }, wanted);
  }

  beginTake(): void {
    this.#grantedDuringTake = new Set();
    this.#recordState("taking");
  }

  /** It is not undone any more when this resolves. @throws ControlError OUT_OF_MEMORY, PERSISTENT_STATE_UNUSABLE */
  async endTake(): Promise<void> {
    this.#recordState("taken");
    await this.persistence.saved();
    this.#grantedDuringTake = undefined;
  }

  /**
   * Undoes a failed take. Its areas are closed: their slots are free, and their late messages are ignored. Slots that a
   * store has not answered for could still be written: they are free when it has answered.
   */
  undoTake(): void {
    this.#areas.clear();
    this.hungStores.undoTake(this.storage, this.#grantedDuringTake ?? [], [
      ...this.members.values(),
    ]);
    this.#grantedDuringTake = undefined;
    this.takenAt = null;
    this.stallUs = null;
    this.fileSystems = [];
    this.enterBestEffort("created");
  }

  noteStore({ device }: Tracker, area: AreaId, store: number, hangs: boolean): void {
    this.hungStores.note(this.#storage, store, area, hangs);
    const type = hangs ? "store_hung" : "store_answered";
    this.events.push({ type, device, store: this.stores[store].path });
  }

  areaIdle(area: AreaId): void {
    this.hungStores.areaIdle(this.#storage, area, [...this.members.values()]);
  }

  /** Whether the area, by its id, is one of this snapshot. */
  hasArea(area: AreaId): boolean {
    return this.#areas.has(area);
  }

  freeSlots(slots: readonly number[]): void {
    for (const slot of slots) {
      this.#grantedDuringTake?.delete(slot);
      this.#storage?.free(slot, 1);
    }
    faultPoint("slots.freed");
  }

  /** Frees slots that were granted and not used, as extents: first slot and count, alternating. */
  takeBackSlots(extents: readonly number[]): void {
    for (let i = 0; i < extents.length; i += 2) {
      const [firstSlot, count] = [extents[i], extents[i + 1]];
      for (let slot = firstSlot; slot < firstSlot + count; slot++) {
        this.#grantedDuringTake?.delete(slot);
      }
      this.#storage?.free(firstSlot, count);
    }
  }

  /** Makes the other devices give back half of their unused slots. */
  async #gatherSlots(short: SlotUser): Promise<void> {
    const asked = [...this.members.values()].flatMap(({ tracker, area }) => {
      if (area === undefined || area.id === short.area || !this.hasArea(area.id)) return [];
      const request = { type: "giveBackSlots", tracker: tracker.id, area: area.id } as const;
      return [this.#context.reactors.request(tracker.reactor, request, GATHER_TIMEOUT_MS)];
    });
    // A device that does not answer gives back nothing.
    await Promise.allSettled(asked);
  }

  #lend({ firstSlot, count }: Extent): void {
    for (let slot = firstSlot; slot < firstSlot + count; slot++) this.#grantedDuringTake?.add(slot);
  }

  /** The journal of a device's area needs room. */
  async tendJournal(tracker: Tracker, area: AreaId, need: LogNeed): Promise<void> {
    const member = this.members.get(tracker.id);
    if (member === undefined) return;
    try {
      await this.persistence.tendJournal(member, area, need);
    } catch (error) {
      await this.#giveUpPersistence((error as Error).message);
    }
  }

  /** The journal of an area cannot be written; writes wait. */
  failJournals(errno: number): Promise<void> {
    // A store may have failed its sync: the kernel would not report to a later daemon what was lost there.
    void this.#storage?.look();
    return this.#giveUpPersistence(errnoName(errno));
  }

  async #giveUpPersistence(why: string): Promise<void> {
    const members = [...this.members.values()];
    await this.persistence.giveUp(members, `the journal could not be written: ${why}`);
    this.saveIfPossible();
  }

  /** An area has lost its first block, or its whole image. */
  fault(tracker: Tracker, area: AreaId, errno: number): void {
    // First, so that a daemon that is killed here reports it twice rather than not at all.
    this.events.push(corrupted(tracker, errno));
    tracker.recordLoss({ errorCode: -errno, area });
  }

  #onStorageEvent(event: DiffStorageEvent): void {
    this.#context.logger.info({ event, snapshot: this.id }, `diff storage: ${event.type}`);
    const usedBytes = this.#storage?.stats().allocatedBytes ?? 0;
    this.events.push({ ...event, usedBytes, limitBytes: this.limitBytes });
  }
}
