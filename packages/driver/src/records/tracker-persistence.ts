/**
 * Keeps a tracker's CBT map through a clean stop and through a power cut.
 *
 * ```
 *   prepare ──▶ judge what is on record ──▶ restore the map, or say why a new generation begins
 *   begin   ──▶ new journal with the map as checkpoint, record "not clean"  ──▶ the front may write
 *   serve   ──▶ the front is there: record "serving"
 *   rotate  ──▶ the log is half full: a new journal, while writes continue
 *   grow    ──▶ the original is larger: a new journal of a new map; its size comes on record last
 *   leave   ──▶ the front is about to go: record "not serving"
 *   end     ──▶ nothing writes any more: last checkpoint, the device's state, record "clean"
 *   fail    ──▶ the medium fails: record and journal are removed, so that no daemon trusts them later
 * ```
 *
 * A daemon that finds a record that is not clean trusts that tracking lasted to the end of its boot only if the record
 * says "serving". It does not if a daemon was killed between begin and serve, or between leave and end.
 */
import { randomUUID } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { ControlError } from "@blksnap/api";
import type { JournalSetup } from "@blksnap/data-plane";
import { JournalKind, NoAnswerError } from "@blksnap/data-plane";
import { CbtMap } from "@blksnap/engine";
import { type EntryVisitor, JournalDraft, openJournal } from "@blksnap/journal";
import {
  compareIdentity,
  doubtOfIdentity,
  type EarlierTracking,
  extSession,
  judgeContinuity,
  readFacts,
  UNKNOWN_BOOT,
  untilWritesShow,
  uuidBytes,
} from "@blksnap/linux-block";
import type { BackingFile } from "@blksnap/ublk";
import { bounded, Serial } from "@blksnap/uring";
import { assertNoOther } from "./assert-no-other.js";
import { boundedSteps } from "./bounded-steps.js";
import { KeptFile, RECORD_SUFFIX } from "./file-names.js";
import { KeptState } from "./kept-state.js";
import { LastingRemoval } from "./lasting-removal.js";
import { MediumWork } from "./medium-work.js";
import { noAnswer, type PersistentDirectory, unusable } from "./persistent-directory.js";
import type { RestoredCbt } from "./restored-cbt.js";
import type {
  EndOptions,
  JournalRequests,
  Prepared,
  PrepareOptions,
} from "./tracker-persistence-options.js";
import { earlierRecord, type PersistentTrackerRecord, trackerRecords } from "./tracker-records.js";

const LOG_BYTES = 2 ** 21;

export class TrackerPersistence {
  readonly uuid: string;
  readonly #directory: PersistentDirectory;
  readonly #backing: BackingFile;
  /** There was no record before. */
  readonly #isNew: boolean;
  #tracking: EarlierTracking;
  /** The next daemon is to attach it automatically. */
  #attached: boolean;
  readonly #state = new KeptState();
  /** log2 of the chunks; set by begin(). */
  #chunkShift = 0;
  #journal: FileHandle | undefined;
  readonly #work: MediumWork;
  readonly #removal: LastingRemoval;
  /** A record must not be replaced by one that was written before it. */
  readonly #records = new Serial();

  private constructor(
    directory: PersistentDirectory,
    backing: BackingFile,
    uuid: string,
    tracking: EarlierTracking,
    isNew: boolean,
    attached = true,
  ) {
    this.#directory = directory;
    this.#backing = backing;
    this.uuid = uuid;
    this.#tracking = tracking;
    this.#isNew = isNew;
    this.#attached = attached;
    this.#work = new MediumWork(directory, uuid);
    this.#removal = new LastingRemoval(directory);
    directory.inUse.add(uuid);
  }

  /**
   * Looks up what is on record about an original that is open exclusively.
   * @throws ControlError DEVICE_NOT_FOUND: it is not, or perhaps not, the device of `uuid`; PERSISTENT_STATE_UNUSABLE:
   * the record cannot be read, or it is wanted or exists and cannot be written
   */
  static async prepare(
    directory: PersistentDirectory,
    backing: BackingFile,
    { persistent, uuid, trustReboots = false }: PrepareOptions,
  ): Promise<Prepared> {
    if (persistent) await directory.own();
    else if (!(await directory.exists())) return { kind: "unrecorded" };
    await directory.untilAnswered();
    // Copies of a disk look the same: the record of a tracked one does not belong to another.
    const records = (await trackerRecords(directory)).filter(
      (record) => !directory.inUse.has(record.uuid),
    );
    if (!persistent && records.length === 0) return { kind: "unrecorded" };
    const facts = await readFacts(backing, await directory.boot());
    const tracking = { ...facts, clean: false, serving: false };
    // Another device may have been attached meanwhile.
    const free = records.filter((record) => !directory.inUse.has(record.uuid));
    const found = earlierRecord(free, backing.path, facts, uuid);
    if (found !== undefined) {
      // A write still in flight to the medium would replace what is written now.
      if (directory.unanswered.has(found.uuid)) throw unusable(directory.path, noAnswer());
      const verdict = judgeContinuity(found.tracking, facts, { trustReboots });
      // A device without a name of its own surely belongs to the record only if it has not changed.
      const isSure =
        verdict.verdict === "continue" ||
        compareIdentity(found.tracking.identity, facts.identity) === "same";
      if (uuid !== undefined) {
        const doubt = isSure ? undefined : doubtOfIdentity(found.tracking, facts);
        assertNoOther(backing.path, verdict, doubt);
      }
      if (verdict.verdict !== "other_device" && (isSure || persistent)) {
        // Only a tracker that needs the medium, as this one does, fails if it cannot be written.
        await directory.own();
        // Users may be forgetting it now.
        if (directory.inUse.has(found.uuid)) throw unusable(directory.path, noAnswer());
        const persistence = new TrackerPersistence(directory, backing, found.uuid, tracking, false);
        if (verdict.verdict === "new_generation") {
          return { kind: "broken", persistence, broken: verdict };
        }
        return { kind: "continues", persistence, chunkShift: found.chunkShift };
      }
    }
    if (!persistent) return { kind: "unrecorded" };
    const persistence = new TrackerPersistence(directory, backing, randomUUID(), tracking, true);
    return { kind: "new", persistence };
  }

  /** After a crash of the daemon: the map exists, and only a new journal is missing. */
  static async resume(
    directory: PersistentDirectory,
    backing: BackingFile,
    uuid: string,
  ): Promise<TrackerPersistence> {
    // If the medium fails, begin() fails and reports it.
    const read = directory.own().then(() => trackerRecords(directory));
    const records = await read.catch(() => []);
    const record = records.find((one) => one.uuid === uuid);
    const tracking =
      record?.tracking ??
      (await readFacts(backing, await directory.boot().catch(() => UNKNOWN_BOOT)));
    // Unchanged: the front may be gone by now.
    const serving = record?.tracking.clean === false && record.tracking.serving === true;
    const unclean = { ...tracking, clean: false, closing: false, serving };
    return new TrackerPersistence(directory, backing, uuid, unclean, false, record?.attached);
  }

  /** Loads the map's journal. @throws JournalError; the error of open(2) */
  async load(): Promise<RestoredCbt> {
    const entries: [number, number, number, number][] = [];
    const expected = { kind: JournalKind.TRACKER, id: this.#id };
    const read = async (onStep: () => void): Promise<RestoredCbt> => {
      const visit: EntryVisitor = (op, a, b, c) => void entries.push([op, a, b, c]);
      const { checkpoint, handle } = await openJournal(this.#journalPath, expected, visit, onStep);
      await handle.close();
      return { checkpoint, entries };
    };
    return boundedSteps(read, this.#directory.answerTimeoutMs, noAnswer);
  }

  /**
   * Call it before the first write. Bounded, because fronts may wait.
   * @param chunkShift log2 of the chunks of its diff areas
   * @throws ControlError PERSISTENT_STATE_UNUSABLE
   */
  async begin(map: CbtMap, chunkShift: number): Promise<JournalSetup> {
    this.#chunkShift = chunkShift;
    try {
      return await this.#work.inTime(this.#begin(map));
    } catch (error) {
      await this.close();
      // A journal without a record is unclaimed.
      if (this.#isNew)
        await bounded(this.forget(), this.#directory.giveUpTimeoutMs, noAnswer).catch(
          () => undefined,
        );
      throw error instanceof ControlError ? error : unusable(this.#journalPath, error);
    }
  }

  async #begin(map: CbtMap): Promise<JournalSetup> {
    await this.#directory.own();
    const draft = await this.#draft(map);
    this.#journal = await draft.publish(map.checkpoint(), 1);
    // An earlier daemon may have ended while its tracker grew.
    this.#tracking = { ...this.#tracking, capacityBytes: map.capacityBytes };
    await this.#writeRecord(this.#tracking);
    // Given up meanwhile, because it took too long: what was written now must not be trusted.
    if (this.#state.isRemoved) await this.forget();
    if (this.#state.isClosed) {
      await this.#journal.close();
      if (this.#isNew) await this.forget();
      throw new Error("it was given up meanwhile");
    }
    return this.#setupOf(draft);
  }

  #setupOf({ fd, logOffsetBytes, logBytes }: JournalDraft): JournalSetup {
    const begin = { usedSectors: 0, nextSequence: 1, nextCommit: 1 };
    return { fd, id: [...this.#id], logOffsetBytes, logBytes, ...begin };
  }

  /** The front exists, until leave(). @throws Error, also if the medium does not answer */
  async serve(): Promise<void> {
    if (this.#state.isOver || (this.#tracking.serving === true && this.#attached)) return;
    const tracking = { ...this.#tracking, serving: true };
    this.#attached = true;
    await this.#work.inTime(this.#writeRecord(tracking));
    this.#tracking = tracking;
  }

  /**
   * The front is about to go, or has gone. If the medium does not answer, end() will not wait as long.
   * @param attached whether the next daemon is to attach it automatically
   * @throws Error, also if the medium does not answer
   */
  async leave(attached: boolean): Promise<void> {
    if (this.#state.isOver) return;
    this.#state.leave();
    this.#attached = attached;
    this.#tracking = { ...this.#tracking, serving: false };
    await this.#work.inTime(this.#writeRecord(this.#tracking), this.#directory.answerTimeoutMs / 2);
  }

  /**
   * Replaces the journal by a new one; writes continue. The map must not be switched meanwhile. Bounded, because a
   * detach waits for it.
   * @throws Error if it did not work: the journal has failed, and the caller must call fail()
   */
  rotate(map: CbtMap, reactor: JournalRequests): Promise<void> {
    return this.#work.inTime(this.#rotate(map, reactor));
  }

  async #rotate(map: CbtMap, reactor: JournalRequests): Promise<void> {
    const draft = await this.#draft(map);
    const { fd, logOffsetBytes, logBytes } = draft;
    const { firstSequence } = await reactor
      .mirror({ fd, logOffsetBytes, logBytes })
      .catch((error: unknown) => giveUp(draft, error));
    if (firstSequence === null) {
      await draft.discard();
      throw new Error("the journal has failed before");
    }
    if (this.#state.isOver) {
      await draft.discard();
      throw new Error("it was given up meanwhile");
    }
    const before = this.#journal;
    await this.#publish(draft, map, firstSequence);
    const { adopted } = await reactor.adopt().finally(() => before?.close());
    if (!adopted) throw new Error("the journal has failed meanwhile");
  }

  /**
   * The original is larger, and has another map: that gets a journal of its own. Until the end the record is of another
   * size, and no daemon continues with it.
   * @param exchange has the reactor exchange both
   * @throws Error: nothing has changed; or `exchange` has ended, and the caller must call fail()
   */
  async grow(map: CbtMap, exchange: (setup: JournalSetup) => Promise<void>): Promise<void> {
    const drafting = this.#draft(map);
    const draft = await this.#work.inTime(drafting).catch((error: unknown) => {
      void drafting.then((late) => late.discard()).catch(() => undefined);
      throw error;
    });
    await exchange(this.#setupOf(draft)).catch((error: unknown) => giveUp(draft, error));
    await this.#work.inTime(this.#publishGrown(draft, map));
  }

  async #publish(draft: JournalDraft, map: CbtMap, firstSequence: number): Promise<void> {
    const journal = await draft.publish(map.checkpoint(), firstSequence);
    if (this.#state.isOver) {
      await journal.close();
      if (this.#state.isRemoved) await this.forget();
      throw new Error("it was given up meanwhile");
    }
    this.#journal = journal;
  }

  async #publishGrown(draft: JournalDraft, map: CbtMap): Promise<void> {
    const before = this.#journal;
    await this.#publish(draft, map, 1);
    await before?.close();
    const tracking = { ...this.#tracking, capacityBytes: map.capacityBytes };
    await this.#writeRecord(tracking);
    this.#tracking = tracking;
  }

  /**
   * Records the original's first bytes, as written through the front: if a file system was mounted there during a power
   * cut, they can prove later that nothing else has mounted it. @throws ControlError
   */
  async noteStart(start: Uint8Array): Promise<void> {
    const { identity, content, capacityBytes } = this.#tracking;
    const found = extSession(start, capacityBytes);
    const session = found?.session ?? null;
    if (session === (content.proof?.session ?? null)) return;
    const tracking = {
      ...this.#tracking,
      identity: { ...identity, contentUuid: found?.uuid ?? identity.contentUuid },
      content: { ...content, proof: { unmounted: null, session } },
    };
    await this.#work.inTime(this.#writeRecord(tracking));
    this.#tracking = tracking;
  }

  /**
   * Ends persistence, when nothing writes to the original any more.
   * @param attached whether the next daemon is to attach it automatically
   * @throws Error, also if the medium does not answer
   */
  async end(map: CbtMap, attached: boolean, options: EndOptions = {}): Promise<void> {
    if (this.#state.isRemoved) return;
    this.#attached = attached;
    const { closing = false } = options;
    let { isLate = false } = options;
    const { answerTimeoutMs } = this.#directory;
    // Do not wait again for what leave() could not record.
    const timeoutMs =
      this.#state.hasLeft && this.#work.isUnderWay ? answerTimeoutMs / 2 : answerTimeoutMs;
    const ending = this.#end(map, closing, () => isLate);
    await this.#work.inTime(ending, timeoutMs).finally(() => {
      isLate = true;
    });
  }

  async #end(map: CbtMap, closing: boolean, isLate: () => boolean): Promise<void> {
    await this.#journal?.close();
    this.#journal = undefined;
    const draft = await this.#draft(map);
    await (await draft.publish(map.checkpoint(), 1)).close();
    const facts = await readFacts(this.#backing, await this.#directory.boot());
    await untilWritesShow(facts.witness);
    // If the end is late, others may have written since: the device's state is not how it was left.
    const clean = { ...facts, clean: true, closing };
    await this.#writeRecord(isLate() ? { ...this.#tracking, serving: false } : clean);
  }

  /**
   * The journal cannot be written: no daemon may trust it.
   * @throws Error if that cannot be recorded for as long as writes may wait; it is retried after that
   */
  async fail(why: string): Promise<void> {
    this.#state.remove(why);
    const removing = this.#removal.run(() => this.forget());
    const { giveUpTimeoutMs } = this.#directory;
    await this.#work.inTime(removing, giveUpTimeoutMs, () => this.#removal.problem ?? noAnswer());
  }

  /** True if it has failed, but after a power cut now the next daemon would trust what is on the medium. */
  get isBelieved(): boolean {
    return this.#removal.problem !== undefined;
  }

  /**
   * Removes everything on record; the record first: without its journal it would still be looked up. A journal that
   * stays when this process is killed in between is removed by the next daemon.
   */
  async forget(): Promise<void> {
    this.#state.remove();
    await this.#directory.removeRecord(KeptFile.trackerRecord.name(this.uuid));
    await this.#directory.removeFile(KeptFile.cbtJournal.name(this.uuid));
  }

  /** As forget(). @throws ControlError PERSISTENT_STATE_UNUSABLE, also if the medium does not answer */
  async forgetInTime(): Promise<void> {
    try {
      await this.#work.inTime(this.forget());
    } catch (error) {
      throw error instanceof ControlError ? error : unusable(this.recordPath, error);
    }
  }

  /**
   * Closes open files, and writes nothing to the medium. If the medium does not answer, they are closed when it does.
   */
  async close(): Promise<void> {
    this.#state.close();
    this.#directory.inUse.delete(this.uuid);
    const journal = this.#journal;
    this.#journal = undefined;
    if (journal === undefined) return;
    await bounded(journal.close(), this.#directory.giveUpTimeoutMs, noAnswer).catch(
      () => undefined,
    );
  }

  /** Why nothing is kept any more; undefined while there is no failure. */
  get failure(): string | undefined {
    return this.#state.failure;
  }

  get #id(): Uint8Array {
    return uuidBytes(this.uuid);
  }

  get recordPath(): string {
    return this.#directory.file(KeptFile.trackerRecord.name(this.uuid) + RECORD_SUFFIX);
  }

  get #journalPath(): string {
    return this.#directory.file(KeptFile.cbtJournal.name(this.uuid));
  }

  #draft(map: CbtMap): Promise<JournalDraft> {
    const journal = { kind: JournalKind.TRACKER, id: this.#id, logBytes: LOG_BYTES };
    const { blockCount } = map;
    return JournalDraft.create(this.#journalPath, journal, CbtMap.checkpointBytes(blockCount));
  }

  async #writeRecord(tracking: EarlierTracking): Promise<void> {
    const { uuid } = this;
    const record: PersistentTrackerRecord = {
      uuid,
      device: this.#backing.path,
      attached: this.#attached,
      tracking,
      chunkShift: this.#chunkShift,
    };
    await this.#records.run(() =>
      this.#directory.writeRecord(KeptFile.trackerRecord.name(uuid), record),
    );
    if (this.#state.isRemoved) await this.forget();
  }
}

/** A reactor has not got the journal, or not answered: then it may open its descriptor at any time. @throws the error */
async function giveUp(draft: JournalDraft, error: unknown): Promise<never> {
  const mayBeUsed = error instanceof NoAnswerError && error.isTaken;
  await (mayBeUsed ? draft.abandon() : draft.discard());
  throw error;
}
