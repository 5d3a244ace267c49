/**
 * Where the state of persistent trackers and snapshots lives: a directory on a medium, which outlives
 * the machine's power.
 *
 * What its files are called, and what is in each, is in file-names.ts.
 *
 * A record (see record-format.ts) is on the medium when its writer is told so, or the one before it is.
 */

import { closeSync, constants, mkdirSync, openSync, readdirSync, unlinkSync } from "node:fs";
import { open, readdir, readFile, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { ControlError } from "@blksnap/api";
import { ENOENT, ENOTDIR, ETIMEDOUT } from "@blksnap/errors";
import { syncDirectory } from "@blksnap/journal";
import { type BootMark, UNKNOWN_BOOT } from "@blksnap/linux-block";
import { bounded, readInHelper, statInHelper, tryLockFile } from "@blksnap/uring";
import { MEDIUM_ANSWER_TIMEOUT_MS, MEDIUM_GIVE_UP_TIMEOUT_MS } from "../time-limits.js";
import { chainBoot } from "./boot-chain.js";
import { KeptFile, RECORD_SUFFIX, UNFINISHED_SUFFIX } from "./file-names.js";
import type { Removing } from "./lasting-removal.js";
import { decodeRecord, encodeRecord } from "./record-format.js";
import type { FoundRecord } from "./state-directory.js";

/**
 * Looks at a directory for as long as `timeoutMs`, without this process waiting for its medium.
 * @returns 0, or the negative errno of what is wrong: -ETIMEDOUT when there was no answer
 */
export type MediumLook = (path: string, timeoutMs: number) => Promise<number>;

const LOCK_BYTES = 512;

export class PersistentDirectory {
  readonly path: string;
  /** Records of trackers, by uuid, that this daemon uses. */
  readonly inUse: Set<string> = new Set();
  /** Those with a write that has not ended; its caller may have given up. */
  readonly unanswered: Set<string> = new Set();
  /** Snapshots, by id, that are being removed here. */
  readonly forgetting: Map<string, Removing> = new Map();
  /** For how long writers wait until a journal that failed is forgotten here. */
  readonly giveUpTimeoutMs: number;
  /** For how long others wait for what is to be on record here. */
  readonly answerTimeoutMs: number;
  readonly #look: MediumLook;
  #lockFd: number | undefined;
  #isClosed = false;
  /** What inTime() has given up, until it ends. */
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
   * Whether an earlier daemon may have left something.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE when the medium does not answer
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
   * What comes of work on the medium. Work that is late keeps a thread, of the few that all calls on files share, until it
   * ends.
   * @param undo takes back what comes too late
   * @throws ControlError PERSISTENT_STATE_UNUSABLE when nothing comes in time; else as the work does
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
   * For what users may try again and again: the next one would be late, too.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE while something of inTime() is late
   */
  assertAnswers(): void {
    if (this.#late.size > 0) throw this.#noAnswer();
  }

  /**
   * As assertAnswers(), but what is late has as much time again.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE
   */
  async untilAnswered(): Promise<void> {
    await bounded(Promise.all(this.#late), this.answerTimeoutMs, () => this.#noAnswer());
  }

  /**
   * Takes possession of the directory, and makes it where there is none; what was not written to its end
   * is removed. Again: does nothing.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE, ALREADY_RUNNING
   */
  async own(): Promise<void> {
    if (this.#lockFd !== undefined) return;
    // From here on this thread asks the medium itself: only one that answers.
    await this.exists();
    if (this.#lockFd === undefined) this.#own();
  }

  #own(): void {
    let fd: number;
    try {
      mkdirSync(this.path, { recursive: true, mode: 0o700 });
      fd = openSync(join(this.path, KeptFile.lock), constants.O_RDWR | constants.O_CREAT, 0o600);
    } catch (error) {
      throw unusable(this.path, error);
    }
    if (!tryLockFile(fd)) {
      closeSync(fd);
      throw new ControlError("ALREADY_RUNNING", `another blksnapd uses ${this.path}`);
    }
    this.#lockFd = fd;
    this.#removeUnfinished();
  }

  /** What an earlier daemon was about to write: this one writes nothing yet. */
  #removeUnfinished(): void {
    for (const file of readdirSync(this.path)) {
      if (!file.endsWith(UNFINISHED_SUFFIX)) continue;
      try {
        unlinkSync(this.file(file));
      } catch {
        // It does no harm: it is replaced, or its removal tried again at the next start.
      }
    }
  }

  /**
   * This boot, linked to the one before where the directory is owned.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE when the medium does not answer
   */
  async boot(): Promise<BootMark> {
    if (this.#lockFd === undefined) return UNKNOWN_BOOT;
    this.#boot ??= chainBoot({
      read: () => readFile(this.file(KeptFile.lock), "utf8"),
      write: (text) => this.#writeLock(text),
    });
    return bounded(this.#boot, this.answerTimeoutMs, () => this.#noAnswer());
  }

  /** In place, as the lock is on the file; a half of it has the wrong checksum. */
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

  /** It was given up: what is in it is another daemon's. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Gives the directory up; what is in it stays. */
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

  /** Removes a file, also from the medium; a missing one is not an error. */
  async removeFile(name: string): Promise<void> {
    const unlessMissing = (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw unusable(this.file(name), error);
    };
    await unlink(this.file(name)).catch(unlessMissing);
    // One that is not there may have been removed a moment ago, and come back with a power cut.
    await syncDirectory(this.path).catch(unlessMissing);
  }

  /** All records whose names begin so, in order of name. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  readRecords(prefix: string): Promise<FoundRecord[]> {
    return this.inTime(this.#readRecords(prefix));
  }

  /** One after the other: each that does not answer keeps a thread of those that others need. */
  async #readRecords(prefix: string): Promise<FoundRecord[]> {
    const records: FoundRecord[] = [];
    for (const file of (await this.names()).sort()) {
      if (!file.startsWith(prefix) || !file.endsWith(RECORD_SUFFIX)) continue;
      records.push(await this.#readRecord(file));
    }
    return records;
  }

  /** Of all files. @throws ControlError PERSISTENT_STATE_UNUSABLE */
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

/** For waits that are bounded, because a medium may never answer. */
export function noAnswer(): Error {
  return new Error("the medium does not answer");
}

/** What is wrong with a file of the directory, under its name. */
export function unusable(path: string, error: unknown): ControlError {
  const { code, message } = error as NodeJS.ErrnoException;
  return new ControlError("PERSISTENT_STATE_UNUSABLE", `${path}: ${message}`, {
    cause: error,
    ...(code === undefined ? {} : { errnoName: code }),
  });
}

/** The lock, which is always there, is read: what the directory itself says may come from memory. */
async function lookInHelper(path: string, timeoutMs: number): Promise<number> {
  const lock = await readInHelper(join(path, KeptFile.lock), 0, LOCK_BYTES, timeoutMs);
  if (lock !== -ENOENT) return typeof lock === "number" ? lock : 0;
  const folder = await statInHelper(path, timeoutMs);
  return typeof folder === "number" ? folder : 0;
}
