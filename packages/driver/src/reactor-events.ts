/** Handles the notices that reactors send unasked. */

import type { AreaId, ReactorNotice } from "@blksnap/data-plane";
import { ENODEV, ESTALE } from "@blksnap/errors";
import type { Logger } from "pino";
import type { Registry } from "./registry.js";
import { noteImageEnd } from "./snapshot/ended-image.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import type { Tracker } from "./tracker/tracker.js";

/** Trackers that may be in the middle of an attach; each sends one notice about its journal. */
const UNCLAIMED_MAX = 64;

type StoreNotice = Extract<ReactorNotice, { notice: "storeHung" | "storeAnswered" }>;
type JournalNotice = Extract<ReactorNotice, { notice: "journalLow" | "journalFault" }>;
/** Notices of a tracker, whether it is in a snapshot or not. */
type TrackerNotice = JournalNotice | Extract<ReactorNotice, { notice: "frontEnded" }>;

export class ReactorEvents {
  readonly #registry: Registry;
  readonly #logger: Logger;
  /** During recovery: notices that cannot be handled yet. */
  #early: ReactorNotice[] | undefined = [];
  /** Notices of trackers that are not known yet: a front lives before its tracker is added. */
  #unclaimed: TrackerNotice[] = [];
  readonly #dropArea: (tracker: Tracker, area: AreaId) => Promise<void>;

  /** @param dropArea ends copy-on-write of a device, and reads of its image */
  constructor(
    registry: Registry,
    logger: Logger,
    dropArea: (tracker: Tracker, area: AreaId) => Promise<void> = () => Promise.resolve(),
  ) {
    this.#registry = registry;
    this.#logger = logger;
    this.#dropArea = dropArea;
  }

  onNotice(reactor: number, notice: ReactorNotice): void {
    if (notice.notice === "error") this.#logger.error({ reactor }, notice.message);
    else if (this.#early === undefined) this.#act(notice);
    else if (!this.#canAct(notice)) this.#early.push(notice);
    else this.#act(notice);
  }

  /** During recovery: more of what an earlier daemon has left is known. */
  retry(): void {
    const early = this.#early ?? [];
    const now = early.filter((notice) => this.#canAct(notice));
    if (this.#early !== undefined) this.#early = early.filter((notice) => !now.includes(notice));
    for (const notice of now) this.#act(notice);
  }

  /** Everything that an earlier daemon has left is known. */
  begin(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const notice of early) this.#act(notice);
  }

  /** Whether the notice's tracker or snapshot is known, and a snapshot has its stores. */
  #canAct(notice: ReactorNotice): boolean {
    if (!("tracker" in notice)) return true;
    const tracker = this.#registry.trackers.get(notice.tracker);
    if (tracker === undefined) return false;
    if (!("area" in notice)) return true;
    return this.#registry.snapshotWith(tracker, notice.area)?.hasStorage === true;
  }

  /** The tracker is known from now on. */
  actOnUnclaimed(tracker: Tracker): void {
    const its = this.#unclaimed.filter((notice) => notice.tracker === tracker.id);
    this.#unclaimed = this.#unclaimed.filter((notice) => notice.tracker !== tracker.id);
    for (const notice of its) this.#actOnTracker(tracker, notice);
  }

  #act(notice: ReactorNotice): void {
    if (!("tracker" in notice)) return;
    const tracker = this.#registry.trackers.get(notice.tracker);
    if (
      notice.notice === "journalLow" ||
      notice.notice === "journalFault" ||
      notice.notice === "frontEnded"
    ) {
      if (tracker !== undefined) this.#actOnTracker(tracker, notice);
      else this.#keep(notice);
      return;
    }
    if (notice.notice === "areaIdle") {
      // The snapshot may no longer have such an area.
      for (const one of this.#registry.snapshots.values()) one.areaIdle(notice.area);
      return;
    }
    if (tracker === undefined) return;
    if (notice.notice === "holdExpired") {
      this.#logger.error({ device: tracker.device }, "a hold of writes expired");
      return;
    }
    const snapshot = this.#registry.snapshotWith(tracker, notice.area);
    if (snapshot === undefined) return;
    if (notice.notice === "slots") {
      void snapshot.serveSlots(tracker, notice.area, notice.wanted);
    } else if (notice.notice === "freed") {
      snapshot.freeSlots(notice.slots);
    } else if (notice.notice === "returned") {
      snapshot.takeBackSlots(notice.extents);
    } else if (notice.notice === "fault") {
      this.#logger.warn({ device: tracker.device, errno: notice.errno }, "snapshot lost data");
      snapshot.fault(tracker, notice.area, notice.errno);
    } else if (notice.notice === "imageEnded") {
      noteImageEnd(snapshot, tracker, this.#logger);
    } else if (notice.notice === "areaJournalLow") {
      void snapshot.tendJournal(tracker, notice.area, notice.need);
    } else if (notice.notice === "areaJournalFault") {
      void snapshot.failJournals(notice.errno);
    } else if (notice.notice === "storeHung" || notice.notice === "storeAnswered") {
      this.#actOnStore(snapshot, tracker, notice);
    } else {
      const text = "writes wait for space in the diff storage";
      this.#logger.warn({ device: tracker.device, snapshot: snapshot.id }, text);
    }
  }

  #actOnTracker(tracker: Tracker, notice: TrackerNotice): void {
    if (notice.notice !== "frontEnded") this.#actOnJournal(tracker, notice);
    else if (tracker.noteFrontEnd()) this.#onFrontEnded(tracker);
  }

  /** Nothing is written through the front any more, so nothing is copied, and no image continues. */
  #onFrontEnded(tracker: Tracker): void {
    const { device, front } = tracker;
    const text = `another program has ended the front ${front.path}: detach ${device}`;
    this.#logger.error({ device, front: front.path }, text);
    this.#endImage(tracker, ENODEV);
  }

  /** Writes are not copied from now on. */
  onSpliceLost(tracker: Tracker): void {
    const { device, front, splice } = tracker;
    const text = `${splice?.path} no longer leads to ${front.path}: detach ${device}`;
    this.#logger.error({ device, front: front.path }, text);
    this.#endImage(tracker, ESTALE);
  }

  #endImage(tracker: Tracker, errno: number): void {
    const { device } = tracker;
    const snapshot = this.#registry.snapshotOf(tracker);
    const area = snapshot?.members.get(tracker.id)?.area;
    if (snapshot === undefined || area === undefined) return;
    this.#dropArea(tracker, area.id)
      .then(() => {
        const { hungStores, hasStorage } = snapshot;
        hungStores.areaDropped(hasStorage ? snapshot.storage : undefined, area.id);
      })
      .catch((error: unknown) => {
        this.#logger.warn({ device, err: error }, "its image is not closed");
      });
    snapshot.fault(tracker, area.id, errno);
  }

  #actOnStore(snapshot: Snapshot, tracker: Tracker, { notice, area, store }: StoreNotice): void {
    const hangs = notice === "storeHung";
    const path = snapshot.stores[store]?.path;
    const text = hangs ? "a store does not answer" : "a store answers again";
    this.#logger.warn({ device: tracker.device, snapshot: snapshot.id, store: path }, text);
    snapshot.noteStore(tracker, area, store, hangs);
  }

  /** Not serialised with operations: those can wait for writes, and writes wait for this. */
  #actOnJournal(tracker: Tracker, notice: JournalNotice): void {
    const isLow = notice.notice === "journalLow";
    const acting = isLow ? tracker.rotateJournal() : tracker.failJournal(notice.errno);
    // It may have been detached meanwhile: then nothing waits for its journal.
    acting.catch((error: unknown) => {
      this.#logger.warn({ device: tracker.device, err: error }, "its journal was not dropped");
    });
  }

  /** Keeps a notice for a tracker to come. Those of former trackers are never used. */
  #keep(notice: TrackerNotice): void {
    this.#unclaimed.push(notice);
    if (this.#unclaimed.length > UNCLAIMED_MAX) this.#unclaimed.shift();
  }
}
