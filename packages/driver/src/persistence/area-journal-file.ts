/**
 * The journal of a diff area on the medium: made with a take or from a map that lives, loaded after a
 * power cut. A reactor appends to it; here it is made longer and closed.
 */
import type { FileHandle } from "node:fs/promises";
import { BlockState, type DiffAreaMap } from "@blksnap/engine";
import {
  ENTRIES_PER_SECTOR,
  growLog,
  JournalDraft,
  type JournalHeader,
  JournalWriter,
  logOffsetOf,
  openJournal,
  SECTOR_BYTES,
  writerBytes,
} from "@blksnap/journal";
import type { JournalSetup } from "../reactor/journal-io.js";
import { uuidBytes } from "../uuid.js";
import { AreaOp, AreaReplay, JournalKind } from "./journal-format.js";
import type { PersistentDirectory } from "./persistent-directory.js";

const LOG_BYTES = 2 ** 20;
const GROWTH_MAX_BYTES = 2 ** 24;
/** What is longer could not be read back in one piece. */
const LOG_MAX_BYTES = 2 ** 30;
/** Entries that are written at a time when a journal is made from a map. */
const COPY_ENTRIES = 3000;

export class AreaJournalFile {
  readonly uuid: string;
  readonly #handle: FileHandle;
  readonly #setup: JournalSetup;
  #header: JournalHeader;

  private constructor(
    uuid: string,
    handle: FileHandle,
    header: JournalHeader,
    usedSectors: number,
    nextCommit: number,
  ) {
    this.uuid = uuid;
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
   * Makes a journal that has what the map has, in place of an older one of the same name; none: nothing.
   * @throws the error of open(2) or write(2)
   */
  static async create(
    directory: PersistentDirectory,
    uuid: string,
    map?: DiffAreaMap,
  ): Promise<AreaJournalFile> {
    const id = uuidBytes(uuid);
    const entries = map === undefined ? [] : entriesOf(map);
    const logBytes =
      LOG_BYTES + Math.ceil(entries.length / 4 / ENTRIES_PER_SECTOR + 1) * 2 * SECTOR_BYTES;
    const journal = { kind: JournalKind.AREA, id, logBytes };
    const draft = await JournalDraft.create(directory.file(areaJournalName(uuid)), journal, 0);
    try {
      const { usedSectors, nextCommit } = await copyEntries(draft, id, entries);
      const handle = await draft.publish(new Uint8Array(0), 1);
      const header = {
        kind: JournalKind.AREA,
        id,
        checkpointBytes: 0,
        logOffsetBytes: logOffsetOf(0),
        logBytes,
        firstSequence: 1,
      };
      return new AreaJournalFile(uuid, handle, header, usedSectors, nextCommit);
    } catch (error) {
      await draft.discard();
      throw error;
    }
  }

  /** What the reactor appends with. */
  get setup(): JournalSetup {
    return this.#setup;
  }

  /** Makes the log longer while the reactor appends. Answers its new length in bytes. @throws Error at 1 GiB */
  async grow(): Promise<number> {
    const { logBytes } = this.#header;
    if (logBytes >= LOG_MAX_BYTES) throw new Error("it has grown to 1 GiB");
    const grown = logBytes + Math.min(logBytes, GROWTH_MAX_BYTES);
    this.#header = await growLog(this.#handle, this.#header, grown);
    return grown;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

export function areaJournalName(uuid: string): string {
  return `area-${uuid}.journal`;
}

/**
 * Puts what a journal has into an empty map.
 * @throws JournalError; Error, when the entries are not of this device; the error of open(2)
 */
export async function loadAreaJournal(
  directory: PersistentDirectory,
  uuid: string,
  map: DiffAreaMap,
): Promise<void> {
  const replay = new AreaReplay(map);
  const expected = { kind: JournalKind.AREA, id: uuidBytes(uuid) };
  const path = directory.file(areaJournalName(uuid));
  const { handle } = await openJournal(path, expected, replay.apply);
  await handle.close();
}

/** All that a map has, as entries of four numbers each. */
function entriesOf(map: DiffAreaMap): number[] {
  const entries: number[] = [];
  map.forEachTouched((chunk) => {
    if (map.isReleased(chunk)) entries.push(AreaOp.RELEASED, chunk, 1, 0);
    const slot = map.slotOf(chunk);
    const blocks = map.geometry.blocksInChunk(chunk);
    for (let block = 0; block < blocks; ) {
      const end = map.stateEnd(chunk, block, blocks);
      const state = map.stateAt(chunk, block);
      if (state === BlockState.DATA) entries.push(AreaOp.SAVED, chunk, slot, block | (end << 16));
      if (state === BlockState.LOST) entries.push(AreaOp.LOST, chunk, 0, block | (end << 16));
      block = end;
    }
  });
  return entries;
}

/** Appends entries to a journal that nobody has yet. */
async function copyEntries(
  draft: JournalDraft,
  id: Uint8Array,
  entries: readonly number[],
): Promise<{ usedSectors: number; nextCommit: number }> {
  const buffer = new ArrayBuffer(writerBytes(COPY_ENTRIES));
  const options = { buffer, id, entriesMax: COPY_ENTRIES, nextSequence: 1, nextCommit: 1 };
  const writer = new JournalWriter(options);
  let usedSectors = 0;
  for (let at = 0; at < entries.length; ) {
    for (; at < entries.length && writer.room > 0; at += 4) {
      const [op = 0, a = 0, b = 0, c = 0] = entries.slice(at, at + 4);
      writer.append(op, a, b, c);
    }
    writer.seal();
    const bytes = new Uint8Array(
      buffer,
      writer.sealedOffsetBytes,
      writer.sealedSectors * SECTOR_BYTES,
    );
    await draft.writeLog(bytes, usedSectors * SECTOR_BYTES);
    usedSectors += writer.sealedSectors;
    writer.complete();
  }
  return { usedSectors, nextCommit: writer.fillingCommit };
}
