/**
 * A tracker's part in its persistence: where its map comes from at attach, and what its reactor and the medium do
 * together afterwards.
 */

import { ControlError } from "@blksnap/api";
import type {
  AdoptReply,
  AreaId,
  CbtReplay,
  JournalSetup,
  MirrorReply,
  ReactorRequest,
} from "@blksnap/data-plane";
import { assertNoConflict } from "@blksnap/diff-storage";
import { CbtMap, CbtReason, type TrackerGeometry } from "@blksnap/engine";
import { errnoName } from "@blksnap/errors";
import { deviceOrFile } from "@blksnap/linux-block";
import type { BackingFile } from "@blksnap/ublk";
import type { DriverContext } from "../context.js";
import { TrackerPersistence } from "../records/tracker-persistence.js";
import type { EndOptions, Prepared } from "../records/tracker-persistence-options.js";
import { type CbtFile, createCbt, loadCbt } from "./cbt-file.js";
import { identityOfBacking } from "./original.js";
import type { Undo } from "./undo.js";

const REASONS = {
  capacity_changed: CbtReason.CAPACITY_CHANGED,
  foreign_write: CbtReason.FOREIGN_WRITE,
  unclean: CbtReason.UNCLEAN,
} as const;

const STILL_ON_RECORD =
  ", and what is recorded cannot be removed: after a power cut the changed-block map would miss writes";

/** For `status`. */
export interface PersistenceState {
  /** `off`: the map ends with the tracker. `failed`: it should be kept but cannot be. */
  readonly state: "off" | "on" | "failed";
  /** Why it failed, or why the generation is new; null if there is nothing to say. */
  readonly why: string | null;
}

/** What to look up for a device that is to be attached. */
export interface JournalOptions {
  readonly persistent: boolean;
  /** Reason of a map without any record; absent: the first attach. */
  readonly reason?: number;
  /** The device must be the one of this record. */
  readonly uuid?: string;
  /** The diff area to resume. */
  readonly area?: { readonly id: AreaId };
  /** Called if the area cannot be resumed, before the record that shows this is replaced. */
  readonly onAreaLost?: () => Promise<void>;
}

/** The first map of a tracker, and what keeps it. */
export interface TrackedMap extends CbtFile {
  readonly journal: TrackerJournal | undefined;
  /** log2 of the device's chunks: unchanged if the map continues. */
  readonly chunkShift: number;
  /** No write to the original has bypassed the tracker, and the area has lost no old data. */
  readonly areaContinues: boolean;
}

export class TrackerJournal {
  /** For the reactor; undefined if the medium failed before it began. */
  setup: JournalSetup | undefined;
  readonly #context: DriverContext;
  readonly #persistence: TrackerPersistence;
  readonly #device: string;
  /** A mapping beside the reactor's, only for reading. */
  #map: CbtMap;
  #why: string | null;
  /** Tracking has ended: the record stays, whatever notices about the journal still arrive. */
  #isOver = false;

  private constructor(
    context: DriverContext,
    backing: BackingFile,
    persistence: TrackerPersistence,
    cbt: CbtFile,
    why: string | null,
  ) {
    this.#context = context;
    this.#persistence = persistence;
    this.#device = backing.path;
    this.#map = CbtMap.open(cbt.cbtMemory.buffer);
    this.#why = why;
  }

  /**
   * Makes or restores the map of a device that is to be attached. Begins its journal if it is to be a persistent
   * tracker, or was one before.
   */
  static async attach(
    context: DriverContext,
    id: number,
    backing: BackingFile,
    geometry: TrackerGeometry,
    options: JournalOptions,
    undo: Undo,
  ): Promise<TrackedMap> {
    const { persistent, trustReboots } = context;
    const { reason = CbtReason.ATTACHED } = options;
    const wanted = { ...options, trustReboots };
    const prepared = await TrackerPersistence.prepare(persistent, backing, wanted);
    if (prepared.kind === "unrecorded") {
      const cbt = await createCbt(context, id, geometry, reason, undo);
      return { ...cbt, journal: undefined, chunkShift: geometry.chunkShift, areaContinues: false };
    }
    const { persistence } = prepared;
    undo.push(() => persistence.close());
    await assertDisjoint(context, backing);
    const begun = await mapOf(context, id, backing, geometry, prepared, options, undo);
    const { cbt, why, chunkShift, areaContinues } = begun;
    if (!areaContinues) await options.onAreaLost?.();
    const journal = new TrackerJournal(context, backing, persistence, cbt, why);
    journal.setup = await persistence.begin(journal.#map, chunkShift);
    undo.push(() =>
      prepared.kind === "new" ? journal.forget() : journal.end(options.uuid !== undefined),
    );
    return { ...cbt, journal, chunkShift, areaContinues };
  }

  /** After a crash of the daemon. A medium that fails does not stop the front from being resumed. */
  static async resume(
    context: DriverContext,
    backing: BackingFile,
    uuid: string,
    chunkShift: number,
    cbt: CbtFile,
  ): Promise<TrackerJournal | undefined> {
    let persistence: TrackerPersistence | undefined;
    try {
      persistence = await TrackerPersistence.resume(context.persistent, backing, uuid);
      const journal = new TrackerJournal(context, backing, persistence, cbt, null);
      try {
        journal.setup = await persistence.begin(journal.#map, chunkShift);
      } catch (error) {
        await journal.#giveUp((error as Error).message);
      }
      return journal;
    } catch (error) {
      context.logger.error({ device: backing.path, err: error }, "the tracker is not persistent");
      await persistence?.close();
      return undefined;
    }
  }

  get uuid(): string {
    return this.#persistence.uuid;
  }

  get state(): PersistenceState {
    const { failure, isBelieved } = this.#persistence;
    if (failure !== undefined) {
      return { state: "failed", why: isBelieved ? `${failure}${STILL_ON_RECORD}` : failure };
    }
    return { state: "on", why: this.#why };
  }

  /** The front exists. No user of the front must wait for this, because the medium may be slow. */
  async serve(): Promise<void> {
    if (this.#isOver) return;
    try {
      await this.#persistence.serve();
    } catch (error) {
      // The record stays safe: after a power cut it only proves less than it could.
      const text =
        "its tracking could not be recorded: after a power cut its map would not continue";
      this.#context.logger.warn({ device: this.#device, err: error }, text);
    }
  }

  /**
   * The front is about to go, or has gone: a later boot must not take the device for tracked to the end of this one,
   * even if this process dies now.
   * @param attached whether the next daemon is to attach it automatically
   */
  async leave(attached: boolean): Promise<void> {
    if (this.#isOver) return;
    try {
      await this.#persistence.leave(attached);
    } catch (error) {
      // This does not stop a detach, and the next daemon checks again.
      const text =
        "the end of tracking could not be recorded: if the system goes down before a daemon has started again, " +
        "detach the device with --forget after that, attach it again, and make a full backup";
      this.#context.logger.error({ device: this.#device, err: error }, text);
    }
  }

  /** The log is half full: replaces the journal by a new one. Not while a snapshot is taken. */
  async rotate(tracker: number, reactor: number): Promise<void> {
    if (this.#isOver || this.#persistence.failure !== undefined) return;
    const { reactors } = this.#context;
    const ask = <Reply>(request: ReactorRequest) => reactors.request<Reply>(reactor, request);
    try {
      await this.#persistence.rotate(this.#map, {
        mirror: (location) => ask<MirrorReply>({ type: "mirrorJournal", tracker, ...location }),
        adopt: () => ask<AdoptReply>({ type: "adoptJournal", tracker }),
      });
    } catch (error) {
      await this.fail(tracker, reactor, (error as Error).message);
    }
  }

  /**
   * The original is larger, and gets a new map.
   * @param exchange has the reactor exchange the map, and the journal for the one that is given
   * @throws the error of `exchange`: nothing has changed
   */
  async grow(
    tracker: number,
    reactor: number,
    map: CbtMap,
    exchange: (setup: JournalSetup | undefined) => Promise<void>,
  ): Promise<void> {
    let isExchanged = false;
    const exchanged = async (setup: JournalSetup | undefined): Promise<void> => {
      await exchange(setup);
      isExchanged = true;
      this.#map = map;
    };
    if (this.#isOver || this.#persistence.failure !== undefined) return exchanged(undefined);
    try {
      await this.#persistence.grow(map, exchanged);
    } catch (error) {
      if (!isExchanged) throw error;
      await this.fail(tracker, reactor, (error as Error).message);
    }
  }

  /** The journal failed, and writes wait for it: they continue when no daemon can trust the journal any more. */
  async fail(tracker: number, reactor: number, why: string | number): Promise<void> {
    if (this.#isOver) return;
    const text = typeof why === "number" ? errnoName(why) : why;
    await this.#giveUp(`the journal could not be written: ${text}`);
    await this.#context.reactors.request(reactor, { type: "dropJournal", tracker });
  }

  /** Records the start of the original; see TrackerPersistence. */
  async noteStart(start: Uint8Array): Promise<void> {
    if (this.#isOver || this.#persistence.failure !== undefined) return;
    try {
      await this.#persistence.noteStart(start);
    } catch (error) {
      // The record stays true: after a power cut, its file system only proves nothing.
      this.#context.logger.warn(
        { device: this.#device, err: error },
        "a mount could not be recorded",
      );
    }
  }

  /** Resolves when everything written and taken so far is on record. */
  async commit(tracker: number, reactor: number): Promise<void> {
    await this.#context.reactors.request(reactor, { type: "commitJournal", tracker });
  }

  /**
   * Nothing writes any more; the map can still be read.
   */
  async end(attached: boolean, options: EndOptions = {}): Promise<void> {
    this.#isOver = true;
    try {
      await this.#persistence.end(this.#map, attached, options);
    } catch (error) {
      const { message } = error as Error;
      // The record is true, except that it does not show the orderly end: the device returns by it.
      if (attached) this.#warnUnclean(message);
      else await this.#giveUp(message);
    } finally {
      await this.#persistence.close();
    }
  }

  #warnUnclean(why: string): void {
    const device = this.#device;
    this.#context.logger.error({ device }, `the end of tracking could not be recorded: ${why}`);
  }

  /** The front is not resumed here: the record stays as it is. */
  async close(): Promise<void> {
    this.#isOver = true;
    await this.#persistence.close();
  }

  /**
   * Nothing writes any more, and nothing is to be kept.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE: it is removed when the medium answers
   */
  async forget(): Promise<void> {
    this.#isOver = true;
    await this.#persistence.close();
    await this.#persistence.forgetInTime();
  }

  async #giveUp(why: string): Promise<void> {
    const { logger } = this.#context;
    const device = this.#device;
    try {
      await this.#persistence.fail(why);
      logger.error(
        { device },
        `${why}: the changed-block map will not survive a reboot or a power cut`,
      );
    } catch (error) {
      const text =
        `${why}${STILL_ON_RECORD}. That is retried; until it succeeds, remove ` +
        `${this.#persistence.recordPath} before the device is attached after a power cut`;
      logger.fatal({ device, err: error }, text);
    }
  }
}

/** The first map. */
interface BegunMap {
  readonly cbt: CbtFile;
  /** Why its generation is new, if that needs an explanation. */
  readonly why: string | null;
  readonly chunkShift: number;
  readonly areaContinues: boolean;
}

/** The recorded map, if nothing bypassed it; otherwise a new one that gives the reason. */
async function mapOf(
  context: DriverContext,
  id: number,
  backing: BackingFile,
  geometry: TrackerGeometry,
  prepared: Exclude<Prepared, { kind: "unrecorded" }>,
  { area }: JournalOptions,
  undo: Undo,
): Promise<BegunMap> {
  const { logger } = context;
  const device = backing.path;
  const newGeneration = async (reason: number, why: string | null): Promise<BegunMap> => {
    const cbt = await createCbt(context, id, geometry, reason, undo);
    return { cbt, why, chunkShift: geometry.chunkShift, areaContinues: false };
  };
  if (prepared.kind === "new") return newGeneration(CbtReason.ATTACHED, null);
  if (prepared.kind === "broken") {
    const { reason, why } = prepared.broken;
    logger.warn({ device, reason }, `a new generation begins: ${why}`);
    return newGeneration(REASONS[reason], why);
  }
  const { persistence, chunkShift } = prepared;
  try {
    const cbt = await loadCbt(context, id, geometry, await persistence.load(), undo);
    logger.info({ device }, "the changed-block map continues");
    const areaContinues =
      area === undefined || mayAreaContinue(context, device, area.id, cbt.replay);
    return { cbt, why: null, chunkShift, areaContinues };
  } catch (error) {
    const why = `its journal is not used: ${(error as Error).message}`;
    logger.warn({ device, err: error }, `a new generation begins: ${why}`);
    return newGeneration(CbtReason.UNCLEAN, why);
  }
}

/** Whether the tracker's journal allows an area to continue. */
function mayAreaContinue(
  { logger }: DriverContext,
  device: string,
  area: AreaId,
  replay: CbtReplay,
): boolean {
  for (const other of replay.lostBeside(area)) {
    logger.warn({ device, area, other }, `old data of the area ${other} was lost: not of this one`);
  }
  const problem = replay.problemOf(area);
  if (problem !== undefined) logger.error({ device, area }, `its image is lost: ${problem}`);
  return problem === undefined;
}

/** @throws ControlError PERSISTENT_STATE_ON_DEVICE */
async function assertDisjoint(
  { blockDevices, persistent }: DriverContext,
  backing: BackingFile,
): Promise<void> {
  const place = deviceOrFile(identityOfBacking(backing), backing.path);
  // Devices that this process serves have been checked before, with more knowledge.
  const probe = { ...blockDevices, layers: () => [] };
  try {
    await assertNoConflict(persistent.path, [place], probe);
  } catch (error) {
    throw new ControlError("PERSISTENT_STATE_ON_DEVICE", (error as Error).message, {
      cause: error,
    });
  }
}
