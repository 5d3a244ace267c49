/**
 * The journal of a diff area on the medium, named by the area's id: made with a take or from an existing map, loaded
 * after a power cut. A reactor appends to it; this class makes its log longer, or renews the journal when much of it is
 * superseded.
 *
 * ```
 *   renewal   draft ─▶ reactor: commits go to both, and the whole map to the draft
 *                                     │ complete
 *                      old handle ◀── publish (rename) ──▶ reactor: only the new one
 * ```
 *
 * A log is renewed when it is more than twice as long as at its beginning, and at least half a MiB. So it never exceeds
 * a few MiB plus about ten times the entries of its map (area-encoder.ts): at most 35 bytes for each 128 KiB of chunks
 * in use.
 */
import type { FileHandle } from "node:fs/promises";
import type {
  AdoptReply,
  JournalSetup,
  LogLocation,
  LogNeed,
  MirrorReply,
} from "@blksnap/data-plane";
import {
  AreaEncoder,
  type AreaId,
  AreaReplay,
  JournalKind,
  TURN_UNITS,
  Turns,
} from "@blksnap/data-plane";
import type { DiffAreaMap } from "@blksnap/engine";
import {
  growLog,
  JournalDraft,
  type JournalHeader,
  JournalWriter,
  logOffsetOf,
  openJournal,
  SECTOR_BYTES,
  writerBytes,
} from "@blksnap/journal";
import { uuidBytes } from "@blksnap/linux-block";
import { bounded } from "@blksnap/uring";
import { JOURNAL_CLOSE_TIMEOUT_MS } from "../time-limits.js";
import { boundedSteps } from "./bounded-steps.js";
import { KeptFile } from "./file-names.js";
import { noAnswer, type PersistentDirectory } from "./persistent-directory.js";

const LOG_BYTES = 2 ** 20;
const GROWTH_MAX_BYTES = 2 ** 24;
/** More than any map of a device takes. */
const LOG_MAX_BYTES = 2 ** 34;
/** Entries written at a time when a journal is made from a map. */
const COPY_ENTRIES = 3000;

/** Requests to the reactor; see messages.ts. */
export interface AreaJournalRequests {
  /** Resolves when the whole map is in the successor. */
  compact(location: Omit<LogLocation, "usedSectors">): Promise<MirrorReply>;
  adopt(): Promise<AdoptReply>;
  abandon(): Promise<void>;
  grown(fd: number, logBytes: number): Promise<void>;
}

/** The length that a log of so many bytes grows to. @throws Error at its largest size */
export function grownLogBytes(logBytes: number): number {
  if (logBytes >= LOG_MAX_BYTES) throw new Error("its log has grown to 16 GiB");
  return logBytes + Math.min(logBytes, GROWTH_MAX_BYTES);
}

export class AreaJournalFile {
  readonly area: AreaId;
  readonly #path: string;
  readonly #setup: JournalSetup;
  #handle: FileHandle;
  #header: JournalHeader;
  /** The successor during a renewal, as long as its log can still grow. */
  #successor: JournalDraft | undefined;
  /** The successor misses commits from here on, even if it was complete before. */
  #isAbandoned = false;
  #renewal: Promise<void> = Promise.resolve();
  #logGrowth: Promise<void> = Promise.resolve();
  #successorGrowth: Promise<void> = Promise.resolve();
  #isClosed = false;

  private constructor(
    area: AreaId,
    path: string,
    handle: FileHandle,
    header: JournalHeader,
    { usedSectors, nextCommit }: { usedSectors: number; nextCommit: number },
  ) {
    this.area = area;
    this.#path = path;
    this.#handle = handle;
    this.#header = header;
    this.#setup = {
      fd: handle.fd,
      id: [...header.id],
      logOffsetBytes: header.logOffsetBytes,
      logBytes: header.logBytes,
      usedSectors,
      nextSequence: 1 + usedSectors,
      nextCommit,
    };
  }

  /**
   * Makes a journal with the content of the map, or an empty one without a map; it replaces one of the same name. Nothing
   * may write the map meanwhile.
   * @throws the error of open(2) or write(2)
   */
  static async create(
    directory: PersistentDirectory,
    area: AreaId,
    map?: DiffAreaMap,
  ): Promise<AreaJournalFile> {
    const path = directory.file(KeptFile.areaJournal.name(area));
    const id = uuidBytes(area);
    const draft = await JournalDraft.create(path, newJournal(id), 0);
    try {
      const copied =
        map === undefined ? { usedSectors: 0, nextCommit: 1 } : await copyMap(draft, id, map);
      const handle = await draft.publish(new Uint8Array(0), 1);
      return new AreaJournalFile(area, path, handle, headerOf(id, draft.logBytes, 1), copied);
    } catch (error) {
      await draft.discard();
      throw error;
    }
  }

  /**
   * As create(), for a new area, within a time limit: a journal that is late is removed.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE: the medium does not answer; as create()
   */
  static async createInTime(
    directory: PersistentDirectory,
    area: AreaId,
  ): Promise<AreaJournalFile> {
    directory.assertAnswers();
    const creating = AreaJournalFile.create(directory, area);
    return directory.inTime(creating, (file) => file.#remove(directory));
  }

  async #remove(directory: PersistentDirectory): Promise<void> {
    await this.close();
    await directory.removeFile(KeptFile.areaJournal.name(this.area));
  }

  /** What the reactor needs to append. */
  get setup(): JournalSetup {
    return this.#setup;
  }

  /** Bytes of its log. */
  get logBytes(): number {
    return this.#header.logBytes;
  }

  /**
   * Does what the reactor reports that its journal needs.
   * @throws Error: the medium has failed, and the journal does not continue
   */
  async serve(need: LogNeed, requests: AreaJournalRequests): Promise<void> {
    if (this.#isClosed) return;
    if (need === "log") await this.#growLog(requests);
    else if (need === "mirror") await this.#growSuccessor(requests);
    else await this.#renewNext(requests);
  }

  /**
   * Call it when nothing appends any more. Resolves when nothing here writes to the journal either.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE: the medium does not answer
   */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const served = Promise.allSettled([this.#renewal, this.#logGrowth]);
    // If the medium answers later, it is closed then.
    const closed = served.then(() => this.#handle.close());
    await bounded(closed, JOURNAL_CLOSE_TIMEOUT_MS, noAnswer);
  }

  /**
   * One renewal at a time. The reactor asks once for each log: a request during a renewal concerns the log that the
   * reactor has already adopted, while the old one is still being closed.
   */
  #renewNext(requests: AreaJournalRequests): Promise<void> {
    const renewal = this.#renewal.catch(() => undefined).then(() => this.#renew(requests));
    this.#renewal = renewal;
    return renewal;
  }

  async #renew(requests: AreaJournalRequests): Promise<void> {
    if (this.#isClosed) return;
    let draft: JournalDraft;
    try {
      draft = await JournalDraft.create(this.#path, newJournal(this.#header.id), 0);
    } catch {
      // There is no room for a successor: a longer log will do.
      return this.#growLog(requests);
    }
    this.#successor = draft;
    this.#isAbandoned = false;
    const { fd, logOffsetBytes, logBytes } = draft;
    const location = { fd, logOffsetBytes, logBytes };
    // If it throws, the reactor may have begun.
    const answer = await requests.compact(location).catch(() => undefined);
    const firstSequence = answer?.firstSequence ?? null;
    this.#successor = undefined;
    await this.#successorGrowth;
    // Given up, or nothing appends any more: the old journal continues.
    const isOver = this.#isClosed || this.#isAbandoned;
    if (isOver || firstSequence === null) {
      const continues = !isOver && (await this.#abandon(requests));
      await draft.discard();
      return continues ? this.#growLog(requests) : undefined;
    }
    const before = this.#handle;
    this.#handle = await draft.publish(new Uint8Array(0), firstSequence);
    this.#header = headerOf(this.#header.id, draft.logBytes, firstSequence);
    // If a reactor does not adopt it, it has reported why, or its device has ended.
    await requests.adopt().catch(() => undefined);
    await this.#logGrowth.catch(() => undefined);
    await before.close();
  }

  /** One growth at a time, while the reactor appends. */
  #growLog(requests: AreaJournalRequests): Promise<void> {
    const growth = this.#logGrowth.catch(() => undefined).then(() => this.#growOnce(requests));
    this.#logGrowth = growth;
    return growth;
  }

  async #growOnce(requests: AreaJournalRequests): Promise<void> {
    const handle = this.#handle;
    const header = await growLog(handle, this.#header, grownLogBytes(this.#header.logBytes));
    if (this.#handle === handle) this.#header = header;
    await requests.grown(handle.fd, header.logBytes);
  }

  async #growSuccessor(requests: AreaJournalRequests): Promise<void> {
    const draft = this.#successor;
    if (draft === undefined) return;
    const grow = async (): Promise<void> => {
      await draft.grow(grownLogBytes(draft.logBytes));
      await requests.grown(draft.fd, draft.logBytes);
    };
    this.#successorGrowth = grow().catch(() => {
      this.#isAbandoned = true;
    });
    await this.#successorGrowth;
    if (!this.#isAbandoned) return;
    if (await this.#abandon(requests)) await this.#growLog(requests);
  }

  /**
   * The reactor gives up the successor.
   * @returns whether it continues with its log: until that is longer, it asks for nothing else
   */
  async #abandon(requests: AreaJournalRequests): Promise<boolean> {
    try {
      await requests.abandon();
      return true;
    } catch {
      // Its device has ended.
      return false;
    }
  }
}

/**
 * Replays a journal into an empty map. There is no time limit as long as it makes progress.
 * @param takeMemory called before anything is recorded of a chunk for which the map has no memory yet
 * @throws JournalError; Error if the entries belong to another device, or if the medium does not answer, in which case
 * the map is no longer touched; the error of open(2)
 */
export async function loadAreaJournal(
  directory: PersistentDirectory,
  area: AreaId,
  map: DiffAreaMap,
  takeMemory: (chunk: number) => void,
): Promise<void> {
  const replay = new AreaReplay(map, takeMemory);
  const expected = { kind: JournalKind.AREA, id: uuidBytes(area) };
  const path = directory.file(KeptFile.areaJournal.name(area));
  await boundedSteps(
    async (onStep) => {
      const { handle } = await openJournal(path, expected, replay.apply, onStep);
      await handle.close();
    },
    directory.answerTimeoutMs,
    noAnswer,
  );
}

function newJournal(id: Uint8Array): { kind: number; id: Uint8Array; logBytes: number } {
  return { kind: JournalKind.AREA, id, logBytes: LOG_BYTES };
}

function headerOf(id: Uint8Array, logBytes: number, firstSequence: number): JournalHeader {
  const logOffsetBytes = logOffsetOf(0);
  return {
    kind: JournalKind.AREA,
    id,
    checkpointBytes: 0,
    logOffsetBytes,
    logBytes,
    firstSequence,
  };
}

/** Writes the whole map into a journal that nothing uses yet. */
async function copyMap(
  draft: JournalDraft,
  id: Uint8Array,
  map: DiffAreaMap,
): Promise<{ usedSectors: number; nextCommit: number }> {
  const buffer = new ArrayBuffer(writerBytes(COPY_ENTRIES));
  const options = { buffer, id, entriesMax: COPY_ENTRIES, nextSequence: 1, nextCommit: 1 };
  const writer = new JournalWriter(options);
  const encoder = new AreaEncoder(map);
  const turns = new Turns();
  let usedSectors = 0;
  while (!encoder.isDone) {
    encoder.step(COPY_ENTRIES, TURN_UNITS, (op, a, b, c) => writer.append(op, a, b, c));
    await turns.spend(TURN_UNITS);
    if (writer.fillingEntries === 0) continue;
    writer.seal();
    const { sealedOffsetBytes, sealedSectors } = writer;
    const bytes = new Uint8Array(buffer, sealedOffsetBytes, sealedSectors * SECTOR_BYTES);
    const needBytes = usedSectors * SECTOR_BYTES + bytes.length + LOG_BYTES / 2;
    while (draft.logBytes < needBytes) await draft.grow(grownLogBytes(draft.logBytes));
    await draft.writeLog(bytes, usedSectors * SECTOR_BYTES);
    usedSectors += sealedSectors;
    writer.complete();
  }
  return { usedSectors, nextCommit: writer.fillingCommit };
}
