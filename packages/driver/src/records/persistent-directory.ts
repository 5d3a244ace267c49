/**
 * Where the state of persistent trackers and snapshots lives: a directory on a medium, which survives power cuts.
 *
 * file-names.ts lists its files and their content.
 *
 * When a write of a record (see record-format.ts) returns, the record is on the medium; before, the old one may be.
 */

import { close, closeSync, constants, open as openFile } from "node:fs";
import { mkdir, open, readdir, readFile, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { ControlError } from "@blksnap/api";
import { ENOENT, ENOTDIR, ETIMEDOUT } from "@blksnap/errors";
import { syncDirectory } from "@blksnap/journal";
import { type BootMark, UNKNOWN_BOOT } from "@blksnap/linux-block";
import { bounded, readInHelper, statInHelper, tryLockFileAsync } from "@blksnap/uring";
import { MEDIUM_ANSWER_TIMEOUT_MS, MEDIUM_GIVE_UP_TIMEOUT_MS } from "../time-limits.js";
import { chainBoot } from "./boot-chain.js";
import { KeptFile, RECORD_SUFFIX, UNFINISHED_SUFFIX } from "./file-names.js";
import type { Removing } from "./lasting-removal.js";
import { decodeRecord, encodeRecord } from "./record-format.js";
import type { FoundRecord } from "./state-directory.js";

/**
 * Examines a directory for at most `timeoutMs`, without this process waiting for its medium.
 * @returns 0, or the negative errno of what is wrong: -ETIMEDOUT if there was no answer
 */
export type MediumLook = (path: string, timeoutMs: number) => Promise<number>;

const openFd = promisify(openFile);
const closeFd = promisify(close);
const LOCK_BYTES = 512;

export class PersistentDirectory {
  readonly path: string;
  /** Uuids of trackers whose records this daemon uses. */
  readonly inUse: Set<string> = new Set();
  /** Those with a write in flight; its caller may have given up. */
  readonly unanswered: Set<string> = new Set();
  /** Snapshots that are being removed here, by id. */
  readonly forgetting: Map<string, Removing> = new Map();
  /** How long writers wait until a journal that failed is forgotten here. */
  readonly giveUpTimeoutMs: number;
  /** How long other callers wait for a record here. */
  readonly answerTimeoutMs: number;
  readonly #look: MediumLook;
  #lockFd: number | undefined;
  #owning: Promise<void> | undefined;
  #isClosed = false;
  /** Work that inTime() has given up and that has not ended. */
  readonly #late = new Set<Promise<unknown>>();
  #boot: Promise<BootMark> | undefined;

  constructor(
    path: string,
    giveUpTimeoutMs: number = MEDIUM_GIVE_UP_TIMEOUT_MS,
    answerTimeoutMs: number = MEDIUM_ANSWER_TIMEOUT_MS,
    look: MediumLook = lookInHelper,
  ) {
    this.path = path;
    this.giveUpTimeoutMs = giveUpTimeoutMs;
    this.answerTimeoutMs = answerTimeoutMs;
    this.#look = look;
  }

  /**
   * Whether the directory exists, so that an earlier daemon may have left something.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE if the medium does not answer
   */
  async exists(): Promise<boolean> {
    const status = await this.#look(this.path, this.answerTimeoutMs);
    if (status === -ETIMEDOUT) throw this.#noAnswer();
    return status !== -ENOENT && status !== -ENOTDIR;
  }

  #noAnswer(): ControlError {
    return unusable(this.path, noAnswer());
  }

  /**
   * The outcome of work on the medium. Late work keeps one of the few threads that all file operations share, until it
   * ends.
   * @param undo undoes the result of late work
   * @throws ControlError PERSISTENT_STATE_UNUSABLE if it is late; else as the work does
   */
  inTime<Value>(work: Promise<Value>, undo?: (value: Value) => Promise<void>): Promise<Value> {
    return bounded(work, this.answerTimeoutMs, () => {
      this.#noteLate(undo === undefined ? work : work.then(undo));
      return this.#noAnswer();
    });
  }

  #noteLate(work: Promise<unknown>): void {
    const ended: Promise<unknown> = work.then(
      () => this.#late.delete(ended),
      () => this.#late.delete(ended),
    );
    this.#late.add(ended);
  }

  /**
   * For operations that users may repeat: another one would be late, too.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE while work of inTime() is late
   */
  assertAnswers(): void {
    if (this.#late.size > 0) throw this.#noAnswer();
  }

  /**
   * As assertAnswers(), but gives late work the same time again.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE
   */
  async untilAnswered(): Promise<void> {
    await bounded(Promise.all(this.#late), this.answerTimeoutMs, () => this.#noAnswer());
  }

  /**
   * Takes possession of the directory, and creates it if it is missing; unfinished records are removed. If it is owned
   * already, does nothing.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE, ALREADY_RUNNING
   */
  async own(): Promise<void> {
    if (this.#lockFd !== undefined) return;
    // From here on this process accesses the medium itself, so it has to answer.
    await this.exists();
    if (this.#lockFd !== undefined) return;
    this.#owning ??= this.#own().finally(() => {
      this.#owning = undefined;
    });
    await this.inTime(this.#owning);
  }

  async #own(): Promise<void> {
    const fd = await this.#openLock().catch((error: unknown) => {
      throw unusable(this.path, error);
    });
    try {
      if (!(await tryLockFileAsync(fd))) {
        throw new ControlError("ALREADY_RUNNING", `another blksnapd uses ${this.path}`);
      }
      await this.#removeUnfinished();
      if (this.#isClosed) throw this.#noAnswer();
    } catch (error) {
      await closeFd(fd);
      throw error;
    }
    this.#lockFd = fd;
  }

  async #openLock(): Promise<number> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
    return openFd(join(this.path, KeptFile.lock), constants.O_RDWR | constants.O_CREAT, 0o600);
  }

  /** Removes what an earlier daemon was writing; this one writes nothing yet. */
  async #removeUnfinished(): Promise<void> {
    for (const file of await readdir(this.path)) {
      if (!file.endsWith(UNFINISHED_SUFFIX)) continue;
      // If that fails, it does no harm: it will be replaced, or removed at the next start.
      await unlink(this.file(file)).catch(() => undefined);
    }
  }

  /**
   * This boot, linked to the previous one if the directory is owned.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE if the medium does not answer
   */
  async boot(): Promise<BootMark> {
    if (this.#lockFd === undefined) return UNKNOWN_BOOT;
    this.#boot ??= chainBoot({
      read: () => readFile(this.file(KeptFile.lock), "utf8"),
      write: (text) => this.#writeLock(text),
    });
    return bounded(this.#boot, this.answerTimeoutMs, () => this.#noAnswer());
  }

  /** In place, because the file is locked; a torn write has the wrong checksum. */
  async #writeLock(text: string): Promise<void> {
    const handle = await open(this.file(KeptFile.lock), "r+");
    try {
      await handle.truncate();
      await handle.write(text, 0);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** True after close(): the content belongs to another daemon. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Gives up the directory; its content stays. Waits for the medium: nothing is served any more. */
  close(): void {
    this.#isClosed = true;
    if (this.#lockFd !== undefined) closeSync(this.#lockFd);
    this.#lockFd = undefined;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Writes or replaces a record. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  async writeRecord(name: string, value: unknown): Promise<void> {
    const path = this.file(name + RECORD_SUFFIX);
    try {
      const handle = await open(`${path}.new`, "w", 0o600);
      try {
        await handle.writeFile(encodeRecord(value));
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(`${path}.new`, path);
      await syncDirectory(this.path);
    } catch (error) {
      throw unusable(path, error);
    }
  }

  removeRecord(name: string): Promise<void> {
    return this.removeFile(name + RECORD_SUFFIX);
  }

  /** Removes a file, also from the medium; a missing file is not an error. */
  async removeFile(name: string): Promise<void> {
    const unlessMissing = (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw unusable(this.file(name), error);
    };
    await unlink(this.file(name)).catch(unlessMissing);
    // A missing file may have been removed a moment ago, and return after a power cut.
    await syncDirectory(this.path).catch(unlessMissing);
  }

  /** All records whose names begin with `prefix`, in order of name. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  readRecords(prefix: string): Promise<FoundRecord[]> {
    return this.inTime(this.#readRecords(prefix));
  }

  /** One after the other: a read that hangs keeps a thread that others need. */
  async #readRecords(prefix: string): Promise<FoundRecord[]> {
    const records: FoundRecord[] = [];
    for (const file of (await this.names()).sort()) {
      if (!file.startsWith(prefix) || !file.endsWith(RECORD_SUFFIX)) continue;
      records.push(await this.#readRecord(file));
    }
    return records;
  }

  /** Names of all files. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  async names(): Promise<string[]> {
    try {
      return await readdir(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      throw unusable(this.path, error);
    }
  }

  async #readRecord(file: string): Promise<FoundRecord> {
    const name = file.slice(0, -RECORD_SUFFIX.length);
    try {
      return { name, ...decodeRecord(await readFile(this.file(file), "utf8")) };
    } catch (error) {
      return { name, problem: (error as Error).message };
    }
  }
}

/** The error of a wait that is bounded because a medium may never answer. */
export function noAnswer(): Error {
  return new Error("the medium does not answer");
}

/** The error of a file of the directory, with its path. */
export function unusable(path: string, error: unknown): ControlError {
  const { code, message } = error as NodeJS.ErrnoException;
  return new ControlError("PERSISTENT_STATE_UNUSABLE", `${path}: ${message}`, {
    cause: error,
    ...(code === undefined ? {} : { errnoName: code }),
  });
}

/** Reads the lock, which always exists: the directory itself may be answered from memory. */
async function lookInHelper(path: string, timeoutMs: number): Promise<number> {
  const lock = await readInHelper(join(path, KeptFile.lock), 0, LOCK_BYTES, timeoutMs);
  if (lock !== -ENOENT) return typeof lock === "number" ? lock : 0;
  const folder = await statInHelper(path, timeoutMs);
  return typeof folder === "number" ? folder : 0;
}
