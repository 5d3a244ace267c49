/**
 * Keeps a snapshot through a stop and through a power cut: a copy of its record on the medium, and a journal per diff
 * area, which the reactors write. The record follows all changes; a caller that needs a change on the medium waits for
 * saved(). While the medium does not answer, at most two records wait: the one being written, and the newest.
 */

import type { AdoptReply, AreaId, LogNeed, MirrorReply, ReactorRequest } from "@blksnap/data-plane";
import { DiffAreaMap } from "@blksnap/engine";
import { bounded, MappedMemory } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { AreaJournalFile, type AreaJournalRequests } from "../records/area-journal-file.js";
import { KeptFile } from "../records/file-names.js";
import { LastingRemoval } from "../records/lasting-removal.js";
import { noAnswer, unusable } from "../records/persistent-directory.js";
import type { SnapshotRecord } from "../records/records.js";
import {
  forgetSnapshot,
  type KeptNames,
  type PersistentMember,
  type PersistentSnapshotRecord,
} from "../records/snapshot-records.js";
import { NO_LIMIT_MS } from "../time-limits.js";
import type { Tracker } from "../tracker/tracker.js";
import { hasLost, type Member } from "./member.js";

function keptMember(member: Member): PersistentMember {
  const { tracker, area, journal } = member;
  const { errorCode, isKept = false } = tracker.loss;
  const its = {
    tracker: tracker.uuid ?? "",
    area: area?.id ?? null,
    journal: journal?.area ?? null,
  };
  return hasLost(member) ? { ...its, lost: !isKept, errorCode } : { ...its, lost: false };
}

interface NextRecord {
  readonly record: PersistentSnapshotRecord;
  readonly isWithdrawal: boolean;
}

export class SnapshotPersistence {
  /** Set at the daemon's end: nothing writes to the stores after that. */
  storeSeals: SnapshotRecord["storeSeals"];
  readonly #context: DriverContext;
  readonly #id: string;
  #isOn: boolean;
  #last: PersistentSnapshotRecord | undefined;
  /** What an earlier daemon has kept, until something is written in its place. */
  readonly #found: KeptNames;
  /** The medium may have a record that says "taken": a boot from there would show its images. */
  #mayBeTaken: boolean;
  /** The medium may have a record that does not say "destroying": a boot from there would take it up. */
  #mayBeKept: boolean;
  /** "taken" is not written any more. */
  #isWithdrawn = false;
  #isWithdrawing = false;
  #written: Promise<void> = Promise.resolve();
  #isWriting = false;
  /** Not begun: the newest record replaces earlier ones, however long the medium does not answer. */
  #next: NextRecord | undefined;
  #givenUp: Promise<void> | undefined;
  /** Settles as forget() does: a caller that destroys what was given up waits for the same removal. */
  #forgotten: Promise<void> = Promise.resolve();
  readonly #removal: LastingRemoval;
  readonly #hide: () => Promise<void>;

  /** @param hide makes sure that a boot from the medium finds no store of it; see hidden-store.ts */
  constructor(context: DriverContext, record: SnapshotRecord, hide: () => Promise<void>) {
    const { id, persistent: isOn = false, members } = record;
    this.#context = context;
    this.#id = id;
    this.#found = { snapshot: { id }, members };
    this.#hide = hide;
    this.#isOn = isOn;
    this.#mayBeTaken = isOn;
    this.#mayBeKept = isOn;
    this.#removal = new LastingRemoval(context.persistent);
  }

  /** False for a snapshot that ends with the machine's power, perhaps because its medium failed. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** After a power cut, a boot from the medium may show its images, right or wrong. */
  get mayComeBack(): boolean {
    return this.#mayBeTaken || this.#context.persistent.forgetting.has(this.#id);
  }

  /** After a power cut, a boot from the medium may find it, at least as it was before its take. */
  get mayBeKept(): boolean {
    return this.#mayBeKept || this.mayComeBack;
  }

  /** This class's part of the snapshot's record. */
  get record(): Pick<SnapshotRecord, "persistent" | "storeSeals"> {
    const { storeSeals } = this;
    return { persistent: this.#isOn, ...(storeSeals && { storeSeals }) };
  }

  /** Writes the record of a change. */
  save({ members: _, ...snapshot }: SnapshotRecord, members: readonly Member[]): void {
    if (!this.#isOn || snapshot.state === "creating") return;
    const record: PersistentSnapshotRecord = {
      snapshot,
      members: members.map(keptMember),
    };
    this.#last = record;
    if (snapshot.state !== "taken") this.#isWithdrawn = false;
    if (!this.#isWithdrawn) this.#write(record);
  }

  /** @param isWithdrawal while a caller waits for it, removing the record is an alternative */
  #write(record: PersistentSnapshotRecord, isWithdrawal = false): void {
    const { state } = record.snapshot;
    if (state === "taken") this.#mayBeTaken = true;
    if (state !== "destroying") this.#mayBeKept = true;
    const before = this.#next;
    this.#next = { record, isWithdrawal: isWithdrawal || before?.isWithdrawal === true };
    if (before === undefined) this.#queue();
  }

  /** Writes the next record, at once or after the one that the medium has not answered. */
  #queue(): void {
    let state: string | undefined;
    const begin = (): Promise<void> => {
      const { record, isWithdrawal } = this.#next as NextRecord;
      this.#next = undefined;
      state = record.snapshot.state;
      return this.#put(record, isWithdrawal);
    };
    const written = this.#isWriting ? this.#written.catch(() => undefined).then(begin) : begin();
    this.#written = written;
    this.#isWriting = true;
    const ended = (): boolean => {
      const isLast = this.#written === written;
      if (isLast) this.#isWriting = false;
      return isLast;
    };
    written.then(
      () => {
        if (!ended()) return;
        if (state !== "taken") this.#mayBeTaken = false;
        if (state === "destroying") this.#mayBeKept = false;
      },
      // Callers of saved() get the error; others continue, and the next change tries again.
      (err: unknown) => {
        ended();
        this.#context.logger.error({ snapshot: this.#id, err }, "record is not written");
      },
    );
  }

  async #put(record: PersistentSnapshotRecord, isWithdrawal: boolean): Promise<void> {
    const { persistent } = this.#context;
    const name = KeptFile.snapshotRecord.name(record.snapshot.id);
    try {
      await persistent.writeRecord(name, record);
    } catch (error) {
      if (!isWithdrawal || !this.#isWithdrawing) throw error;
      // A full disk has no room to replace it.
      await persistent.removeRecord(name);
    }
  }

  /**
   * Resolves when all changes so far are on the medium. Late writes keep their order: an older record must not replace
   * a newer one.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE
   */
  saved(): Promise<void> {
    return this.#context.persistent.inTime(this.#written);
  }

  /**
   * Must be called before copies end: a boot from the medium would show images that miss what is written after that.
   * Resolves when no record on the medium says "taken", or when the snapshot is given up and that is reported.
   * @param leaving members of a snapshot that is to end: if the medium answers with a failure, the snapshot is given
   * up, as
   *   its next first write would do
   * @throws ControlError PERSISTENT_STATE_UNUSABLE: the medium does not answer, or fails. Then everything is as before,
   *   except that a snapshot may be given up; for that one, another call does not fail
   */
  async withdraw(leaving?: readonly Member[]): Promise<void> {
    const last = this.#last;
    if (!this.#isOn) return this.#givenUp;
    if (!this.#mayBeTaken || last === undefined) return;
    const { snapshot } = last;
    this.#isWithdrawn = snapshot.state === "taken";
    const state = this.#isWithdrawn ? "destroying" : snapshot.state;
    this.#isWithdrawing = true;
    this.#write({ ...last, snapshot: { ...snapshot, state } }, true);
    let failure: Error | undefined;
    try {
      failure = await this.#failure();
      if (failure === undefined) return;
      if (leaving === undefined) throw failure;
    } catch (error) {
      this.#isWithdrawn = false;
      if (!this.#isOn) return this.#givenUp;
      if (this.#last !== undefined) this.#write(this.#last);
      throw error;
    } finally {
      this.#isWithdrawing = false;
    }
    await this.giveUp(leaving, `its end could not be recorded: ${failure.message}`);
    if (this.#mayBeTaken) throw failure;
  }

  /**
   * As saved(), but returns the medium's failure.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE: it does not answer
   */
  #failure(): Promise<Error | undefined> {
    const answer = this.#written.then(
      () => undefined,
      (error: Error) => error,
    );
    return this.#context.persistent.inTime(answer);
  }

  /**
   * At the daemon's end, when no device of the snapshot is written any more: records in the journals which blocks were
   * lost; until then only the maps have that.
   */
  async suspend(members: readonly Member[]): Promise<void> {
    const { answerTimeoutMs, path } = this.#context.persistent;
    await bounded(this.#suspend(members), answerTimeoutMs, () => unusable(path, noAnswer()));
  }

  async #suspend(members: readonly Member[]): Promise<void> {
    const last = this.#last;
    for (const member of members) {
      const { journal, area: its } = member;
      await journal?.close();
      if (journal === undefined || its === undefined || !hasLost(member)) continue;
      const { map } = its;
      const memory = MappedMemory.file(map.fd, 0, map.lengthBytes);
      const area = DiffAreaMap.open(memory.buffer);
      const complete = await AreaJournalFile.create(this.#context.persistent, journal.area, area);
      await complete.close();
      memory.unmap();
    }
    if (last === undefined || !this.#isOn) return;
    this.#write({ ...last, members: last.members.map((one) => ({ ...one, lost: false })) });
    await this.saved();
  }

  /**
   * Removes everything that is kept, except journals of areas that are still written. Retries if the medium fails: the
   * caller bounds its wait.
   */
  async forget(): Promise<void> {
    // Recovery may have begun the same, if it could not continue with the snapshot.
    await Promise.all([this.#forget(), this.#context.persistent.forgetting.get(this.#id)?.done]);
  }

  #forget(): Promise<void> {
    if (!this.#isOn) return this.#forgotten;
    this.#isOn = false;
    this.#forgotten = this.#removal.run(async () => {
      await this.#written.catch(() => undefined);
      await forgetSnapshot(this.#context.persistent, this.#last ?? this.#found);
      this.#mayBeTaken = false;
      this.#mayBeKept = false;
    });
    return this.#forgotten;
  }

  /** The area's journal is not needed any more. */
  async removeJournal(member: Member): Promise<void> {
    const { journal } = member;
    if (journal === undefined) return;
    await this.unlessHung("an area's journal is not removed yet", async () => {
      member.journal = undefined;
      await journal.close().catch((error: unknown) => {
        this.#context.logger.error({ err: error }, "the journal of a diff area is not closed");
      });
      await this.#context.persistent.removeFile(KeptFile.areaJournal.name(journal.area));
    });
  }

  /**
   * At the end of a snapshot: does not wait for a medium that does not answer. The work is done when it answers.
   * @param text what to log
   */
  async unlessHung(text: string, work: () => Promise<void>): Promise<void> {
    const { logger, persistent } = this.#context;
    const snapshot = this.#last?.snapshot.id;
    let isHung = false;
    const working = work();
    const late = () => {
      isHung = true;
      return this.#removal.problem ?? noAnswer();
    };
    try {
      await bounded(working, persistent.giveUpTimeoutMs, late);
    } catch (error) {
      if (!isHung) throw error;
      logger.error({ snapshot, err: error }, text);
      working.catch((cause: unknown) => logger.error({ snapshot, err: cause }, text));
    }
  }

  /** Serves a need of an area's journal. @throws Error if the medium fails, or the log is too long */
  async tendJournal({ tracker, journal }: Member, area: AreaId, need: LogNeed): Promise<void> {
    if (journal === undefined || !this.#isOn || tracker.isEnding) return;
    try {
      await journal.serve(need, this.#requests(tracker, area));
    } catch (error) {
      // At the end of the tracker nothing appends any more.
      if (!tracker.isEnding) throw error;
    }
  }

  #requests({ id: tracker, reactor }: Tracker, area: AreaId): AreaJournalRequests {
    const its = { tracker, area };
    // Without a time limit: the files stay open here as long as the reactor may use them.
    const ask = <Reply>(request: ReactorRequest): Promise<Reply> =>
      this.#context.reactors.request<Reply>(reactor, request, NO_LIMIT_MS);
    return {
      compact: (location) => ask<MirrorReply>({ type: "compactAreaJournal", ...its, ...location }),
      adopt: () => ask<AdoptReply>({ type: "adoptAreaJournal", ...its }),
      abandon: () => ask<void>({ type: "abandonAreaJournal", ...its }),
      grown: (fd, logBytes) => ask<void>({ type: "growAreaJournal", ...its, fd, logBytes }),
    };
  }

  /** The medium fails: the snapshot continues, but ends with the machine's power. Writes wait meanwhile. */
  async giveUp(members: readonly Member[], why: string): Promise<void> {
    // Whatever fails meanwhile, no write continues before the record is gone.
    this.#givenUp ??= this.#continueWithout(why);
    await this.#givenUp;
    await Promise.all(members.map((member) => this.#dropJournal(member)));
  }

  /** Never fails: writes of other devices wait for their own. */
  async #dropJournal({ tracker, area }: Member): Promise<void> {
    if (area === undefined) return;
    const { reactors, logger } = this.#context;
    const its = { tracker: tracker.id, area: area.id };
    try {
      await reactors.request(tracker.reactor, { type: "dropAreaJournal", ...its });
    } catch (err) {
      // It may have been detached meanwhile: then nothing waits for its journal.
      logger.warn({ device: tracker.device, err }, "the journal of its diff area was not dropped");
    }
  }

  async #continueWithout(why: string): Promise<void> {
    if (!this.#isOn) return;
    const { logger } = this.#context;
    const snapshot = this.#last?.snapshot.id;
    const text = `${why}: the snapshot will not survive a reboot or a power cut`;
    const { persistent } = this.#context;
    const removing = this.forget();
    removing.catch(() => undefined);
    const patienceMs = persistent.giveUpTimeoutMs / 2;
    const notRemoved = () => this.#removal.problem ?? noAnswer();
    try {
      await bounded(removing, patienceMs, notRemoved).catch(() =>
        bounded(this.#hidden(removing), patienceMs, notRemoved),
      );
      logger.error({ snapshot }, text);
    } catch (error) {
      const danger = "its record cannot be removed: after a power cut its images would be wrong";
      logger.fatal({ snapshot, err: error }, `${text}, and ${danger}. That is retried`);
    }
  }

  /** Resolves when a boot from the medium does not restore the snapshot, whether its record is there or not. */
  async #hidden(removing: Promise<void>): Promise<void> {
    const hiding = this.#hide();
    hiding.then(
      () => {
        this.#mayBeTaken = false;
        this.#mayBeKept = false;
      },
      (err: unknown) =>
        this.#context.logger.error({ snapshot: this.#id, err }, "its stores stay where they were"),
    );
    await Promise.any([removing, hiding]);
  }
}
