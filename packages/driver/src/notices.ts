/** What reactors tell by themselves, and what is done about it. */
import type { Logger } from "pino";
import type { ReactorNotice } from "./reactor/messages.js";
import type { Registry } from "./registry.js";
import type { Tracker } from "./tracker/tracker.js";

/** Trackers that are being attached at a time; each tells once of its journal. */
const UNCLAIMED_MAX = 64;

type JournalNotice = Extract<ReactorNotice, { notice: "journalLow" | "journalFault" }>;

export class Notices {
  readonly #registry: Registry;
  readonly #logger: Logger;
  /** While recovering: those that cannot be acted on yet. */
  #early: ReactorNotice[] | undefined = [];
  /** Of journals whose trackers are not known yet: a front lives before its tracker is added. */
  #unclaimed: JournalNotice[] = [];

  constructor(registry: Registry, logger: Logger) {
    this.#registry = registry;
    this.#logger = logger;
  }

  take(reactor: number, notice: ReactorNotice): void {
    if (notice.notice === "error") this.#logger.error({ reactor }, notice.message);
    else if (this.#early === undefined) this.#act(notice);
    else if (!this.#canAct(notice)) this.#early.push(notice);
    else this.#act(notice);
  }

  /** While recovering: more of what an earlier daemon has left is known. */
  retry(): void {
    const early = this.#early ?? [];
    const now = early.filter((notice) => this.#canAct(notice));
    if (this.#early !== undefined) this.#early = early.filter((notice) => !now.includes(notice));
    for (const notice of now) this.#act(notice);
  }

  /** All that an earlier daemon has left is known. */
  begin(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const notice of early) this.#act(notice);
  }

  /** Whether who it is about is known, and a snapshot has its stores. */
  #canAct(notice: ReactorNotice): boolean {
    if (!("tracker" in notice)) return true;
    const tracker = this.#registry.trackers.get(notice.tracker);
    if (tracker === undefined) return false;
    if (!("area" in notice)) return true;
    return this.#registry.snapshotOf(tracker)?.hasStorage === true;
  }

  /** The tracker is known from now on. */
  actOnUnclaimed(tracker: Tracker): void {
    const its = this.#unclaimed.filter((notice) => notice.tracker === tracker.id);
    this.#unclaimed = this.#unclaimed.filter((notice) => notice.tracker !== tracker.id);
    for (const notice of its) this.#actOnJournal(tracker, notice);
  }

  #act(notice: ReactorNotice): void {
    if (!("tracker" in notice)) return;
    const tracker = this.#registry.trackers.get(notice.tracker);
    if (notice.notice === "journalLow" || notice.notice === "journalFault") {
      if (tracker !== undefined) this.#actOnJournal(tracker, notice);
      else this.#keep(notice);
      return;
    }
    const snapshot = tracker && this.#registry.snapshotOf(tracker);
    if (tracker === undefined || snapshot === undefined) return;
    if ("area" in notice && !snapshot.hasArea(notice.area)) return;
    if (notice.notice === "slots") {
      void snapshot.serveSlots(tracker, notice.area, notice.wanted);
    } else if (notice.notice === "freed") {
      snapshot.freeSlots(notice.slots);
    } else if (notice.notice === "fault") {
      this.#logger.warn({ device: tracker.device, errno: notice.errno }, "snapshot lost data");
      snapshot.fault(tracker, notice.errno);
    } else if (notice.notice === "areaJournalLow") {
      void snapshot.growJournal(tracker, notice.area);
    } else if (notice.notice === "areaJournalFault") {
      void snapshot.failJournals(notice.errno);
    } else if (notice.notice === "blocked") {
      const text = "writes wait for room in the diff storage";
      this.#logger.warn({ device: tracker.device, snapshot: snapshot.id }, text);
    } else {
      this.#logger.error({ device: tracker.device }, "a hold of writes expired");
    }
  }

  /** Not one after the other with operations: these can wait for writes, and writes wait for this. */
  #actOnJournal(tracker: Tracker, notice: JournalNotice): void {
    const isLow = notice.notice === "journalLow";
    const acting = isLow ? tracker.rotateJournal() : tracker.failJournal(notice.errno);
    // It may have been detached meanwhile: then nobody waits for its journal any more.
    acting.catch((error: unknown) => {
      this.#logger.warn({ device: tracker.device, err: error }, "its journal was not dropped");
    });
  }

  /** Those of trackers that have gone are never asked for. */
  #keep(notice: JournalNotice): void {
    this.#unclaimed.push(notice);
    if (this.#unclaimed.length > UNCLAIMED_MAX) this.#unclaimed.shift();
  }
}
