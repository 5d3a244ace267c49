/**
 * Journal files: complete before they get their name, and checked completely when they are opened.
 */
import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { type CheckpointSource, decodeCheckpoint, encodeCheckpoint } from "./checkpoint.js";
import { JournalError } from "./errors.js";
import { decodeHeader, encodeHeader, type JournalHeader, logOffsetOf } from "./header.js";
import {
  checkpointFileBytes,
  HEADER_BYTES,
  PAGE_BYTES,
  PAGE_PAYLOAD_BYTES,
  SECTOR_BYTES,
} from "./layout.js";
import { type EntryVisitor, LogCheck, type LogEnd, visitEntries } from "./log-reader.js";

/** Suffix of a journal that does not have its name yet. */
export const DRAFT_SUFFIX = ".new";

const ZEROES_BYTES = 2 ** 20;
/** How much of a log is read in one turn of the thread. */
const WINDOW_BYTES = 2 ** 20;
/** How much of a checkpoint is read in one turn, in pages. */
const WINDOW_PAGES = 16;

export interface NewJournal {
  readonly kind: number;
  readonly id: Uint8Array;
  readonly logBytes: number;
}

/** Descriptors that stay open; Node.js would close those that nothing refers to. */
const leftOpen: FileHandle[] = [];

/** A file in the making; it has its final name only after publish(). */
export class JournalDraft {
  readonly path: string;
  readonly logOffsetBytes: number;
  readonly #handle: FileHandle;
  readonly #journal: NewJournal;
  #logBytes: number;
  readonly #checkpointBytes: number;

  private constructor(
    path: string,
    handle: FileHandle,
    journal: NewJournal,
    checkpointBytes: number,
  ) {
    this.path = path;
    this.#handle = handle;
    this.#journal = journal;
    this.#checkpointBytes = checkpointBytes;
    this.logOffsetBytes = logOffsetOf(checkpointBytes);
    this.#logBytes = journal.logBytes;
  }

  /**
   * Makes `<path>.new` with an empty log whose space is allocated, so that appending cannot fail for lack of space
   * (except on copy-on-write file systems).
   * @throws the error of open(2) or write(2); JournalError ARGUMENT_INVALID
   */
  static async create(
    path: string,
    journal: NewJournal,
    checkpointBytes: number,
  ): Promise<JournalDraft> {
    const { O_RDWR, O_CREAT, O_TRUNC } = constants;
    const handle = await open(path + DRAFT_SUFFIX, O_RDWR | O_CREAT | O_TRUNC, 0o600);
    const draft = new JournalDraft(path, handle, journal, checkpointBytes);
    try {
      await writeZeroes(handle, 0, draft.logOffsetBytes + draft.logBytes);
      return draft;
    } catch (error) {
      await draft.discard();
      throw error;
    }
  }

  /** The descriptor; after publish() the caller closes it, by `handle.close()`. */
  get fd(): number {
    return this.#handle.fd;
  }

  get logBytes(): number {
    return this.#logBytes;
  }

  /** Makes the log longer. Appending may continue meanwhile. */
  async grow(logBytes: number): Promise<void> {
    const before = this.#logBytes;
    await writeZeroes(this.#handle, this.logOffsetBytes + before, logBytes - before);
    this.#logBytes = logBytes;
  }

  /** Writes sealed sectors into the log, before anything else is appended to it. */
  async writeLog(bytes: Uint8Array, offsetBytes: number): Promise<void> {
    if (offsetBytes + bytes.length > this.logBytes) {
      throw new JournalError("ARGUMENT_INVALID", "the sectors do not fit into the log");
    }
    await writeAll(this.#handle, bytes, this.logOffsetBytes + offsetBytes);
  }

  /**
   * Writes checkpoint and header, and gives the file its name, replacing another one; resolves when everything is on
   * the medium. The log may have been appended to before. If it fails, the draft is given up.
   */
  async publish(
    checkpoint: Uint8Array | CheckpointSource,
    firstSequence: number,
  ): Promise<FileHandle> {
    const source = checkpoint instanceof Uint8Array ? sourceOf(checkpoint) : checkpoint;
    try {
      return await this.#publish(source, firstSequence);
    } catch (error) {
      await this.discard();
      throw error;
    }
  }

  async #publish(checkpoint: CheckpointSource, firstSequence: number): Promise<FileHandle> {
    const { kind, id } = this.#journal;
    if (checkpoint.length !== this.#checkpointBytes) {
      throw new JournalError("ARGUMENT_INVALID", "the checkpoint has another size");
    }
    for (let page = 0; page * PAGE_PAYLOAD_BYTES < checkpoint.length; page += WINDOW_PAGES) {
      const from = page * PAGE_PAYLOAD_BYTES;
      const left = checkpoint.length - from;
      const part = new Uint8Array(Math.min(WINDOW_PAGES * PAGE_PAYLOAD_BYTES, left));
      checkpoint.read(part, from);
      const at = HEADER_BYTES + page * PAGE_BYTES;
      await writeAll(this.#handle, encodeCheckpoint(part, id, page), at);
    }
    const header = {
      kind,
      id,
      checkpointBytes: checkpoint.length,
      logOffsetBytes: this.logOffsetBytes,
      logBytes: this.#logBytes,
      firstSequence,
    };
    await writeAll(this.#handle, encodeHeader(header), 0);
    await this.#handle.sync();
    await rename(this.path + DRAFT_SUFFIX, this.path);
    await syncDirectory(dirname(this.path));
    return this.#handle;
  }

  /** Gives up the draft. */
  async discard(): Promise<void> {
    await this.#handle.close();
    await this.#remove();
  }

  /**
   * Gives up the draft where somebody may be about to use the descriptor: it stays open for good, as another file that
   * got its number would be written to.
   */
  async abandon(): Promise<void> {
    leftOpen.push(this.#handle);
    await this.#remove();
  }

  #remove(): Promise<void> {
    return rm(this.path + DRAFT_SUFFIX, { force: true });
  }
}

/** A journal that was read. */
export interface OpenedJournal {
  readonly header: JournalHeader;
  readonly checkpoint: Uint8Array;
  readonly end: LogEnd;
  /** Open for reading and writing; the caller closes it. */
  readonly handle: FileHandle;
}

/**
 * Opens a journal and reads all of it, the log in windows, because it can be long.
 * @param expected its kind and id; another one is JOURNAL_FOREIGN
 * @param visit called with the log's entries, unless anything is damaged
 * @param onRead called after each window; an exception ends the reading
 * @throws JournalError; the error of open(2) or read(2)
 */
export async function openJournal(
  path: string,
  expected: { readonly kind: number; readonly id: Uint8Array },
  visit: EntryVisitor,
  onRead: () => void = () => undefined,
): Promise<OpenedJournal> {
  const handle = await open(path, constants.O_RDWR);
  try {
    const { size } = await handle.stat();
    const header = decodeHeader(await readAll(handle, 0, SECTOR_BYTES), size);
    if (header.kind !== expected.kind || !Buffer.from(header.id).equals(expected.id)) {
      throw new JournalError("JOURNAL_FOREIGN", `${path} is the journal of something else`);
    }
    const checkpoint = await readCheckpoint(handle, header);
    const end = await readLogFrom(handle, header, visit, onRead);
    return { header, checkpoint, end, handle };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readCheckpoint(
  handle: FileHandle,
  { checkpointBytes, id }: JournalHeader,
): Promise<Uint8Array> {
  const checkpoint = new Uint8Array(checkpointBytes);
  const pages = checkpointFileBytes(checkpointBytes) / PAGE_BYTES;
  for (let page = 0; page < pages; page += WINDOW_PAGES) {
    const lengthBytes = Math.min(WINDOW_PAGES, pages - page) * PAGE_BYTES;
    const part = await readAll(handle, HEADER_BYTES + page * PAGE_BYTES, lengthBytes);
    decodeCheckpoint(part, checkpoint, id, page);
  }
  return checkpoint;
}

function sourceOf(bytes: Uint8Array): CheckpointSource {
  const read = (into: Uint8Array, offset: number): void =>
    into.set(bytes.subarray(offset, offset + into.length));
  return { length: bytes.length, read };
}

/** Checks everything before anything is visited. */
async function readLogFrom(
  handle: FileHandle,
  { logOffsetBytes, logBytes, id, firstSequence }: JournalHeader,
  visit: EntryVisitor,
  onRead: () => void,
): Promise<LogEnd> {
  const check = new LogCheck(id, firstSequence);
  for (let at = 0; at < logBytes; at += WINDOW_BYTES) {
    const length = Math.min(WINDOW_BYTES, logBytes - at);
    const window = await readAll(handle, logOffsetBytes + at, length);
    onRead();
    check.add(window);
  }
  const { end } = check;
  const usedBytes = end.usedSectors * SECTOR_BYTES;
  for (let at = 0; at < usedBytes; at += WINDOW_BYTES) {
    const length = Math.min(WINDOW_BYTES, usedBytes - at);
    const window = await readAll(handle, logOffsetBytes + at, length);
    onRead();
    visitEntries(window, visit);
  }
  return end;
}

/** Zeroes what an incomplete commit has left after the log's end, so that the log can be appended to. */
export async function repairTail({ header, end, handle }: OpenedJournal): Promise<void> {
  if (!end.torn) return;
  const from = end.usedSectors * SECTOR_BYTES;
  await writeZeroes(handle, header.logOffsetBytes + from, header.logBytes - from);
  await handle.sync();
}

/** Makes the log longer, also in the header. Appending may continue meanwhile. */
export async function growLog(
  handle: FileHandle,
  header: JournalHeader,
  logBytes: number,
): Promise<JournalHeader> {
  const grown = { ...header, logBytes };
  const from = header.logOffsetBytes + header.logBytes;
  await writeZeroes(handle, from, logBytes - header.logBytes);
  await handle.sync();
  await writeAll(handle, encodeHeader(grown), 0);
  await handle.sync();
  return grown;
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeZeroes(handle: FileHandle, offset: number, length: number): Promise<void> {
  const zeroes = new Uint8Array(Math.min(ZEROES_BYTES, length));
  for (let done = 0; done < length; done += zeroes.length) {
    const part = zeroes.subarray(0, Math.min(zeroes.length, length - done));
    await writeAll(handle, part, offset + done);
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

async function readAll(handle: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await handle.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw new JournalError("JOURNAL_TRUNCATED", "the journal ends too early");
    done += bytesRead;
  }
  return bytes;
}
