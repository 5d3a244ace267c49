/**
 * Where the state of persistent trackers and snapshots lives: a directory on a medium, which outlives
 * the machine's power.
 *
 * ```
 *   lock                        held by the daemon that owns the directory; in it the last two boots
 *                               in which one did
 *   tracker-UUID.record         a device, and what it looked like when nobody tracked it any more
 *   cbt-UUID.journal            its changed-block map
 *   snapshot-UUID.record        a snapshot
 *   area-UUID-UUID.journal      where the old data of one of its devices is
 * ```
 *
 * A record (see record-format.ts) is on the medium when its writer is told so, or the one before it is.
 */
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  unlinkSync,
} from "node:fs";
import { open, readFile, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { syncDirectory } from "@blksnap/journal";
import { tryLockFile } from "@blksnap/uring";
import { ControlError } from "../control/control-error.js";
import { decodeRecord, encodeRecord } from "../state/record-format.js";
import type { FoundRecord } from "../state/state-directory.js";
import { type BootMark, chainBoot, UNKNOWN_BOOT } from "./boot-chain.js";

const SUFFIX = ".record";
/** Also of journals that are being made. */
const UNFINISHED_SUFFIX = ".new";
const GIVE_UP_TIMEOUT_MS = 2_500;
const ANSWER_TIMEOUT_MS = 20_000;

export class PersistentDirectory {
  readonly path: string;
  /** Records of trackers, by uuid, that somebody goes on with. */
  readonly inUse: Set<string> = new Set();
  /** Those of which something is still being written, by somebody who may have given up. */
  readonly unanswered: Set<string> = new Set();
  /** For how long writers wait until a journal that failed is forgotten here. */
  readonly giveUpTimeoutMs: number;
  /** For how long others wait for what is to be on record here. */
  readonly answerTimeoutMs: number;
  #lockFd: number | undefined;
  #boot: Promise<BootMark> | undefined;

  constructor(
    path: string,
    giveUpTimeoutMs: number = GIVE_UP_TIMEOUT_MS,
    answerTimeoutMs: number = ANSWER_TIMEOUT_MS,
  ) {
    this.path = path;
    this.giveUpTimeoutMs = giveUpTimeoutMs;
    this.answerTimeoutMs = answerTimeoutMs;
  }

  /** True where an earlier daemon may have left something. */
  get exists(): boolean {
    return existsSync(this.path);
  }

  /**
   * Takes possession of the directory, and makes it where there is none; what was not written to its end
   * is removed. Again: does nothing.
   * @throws ControlError PERSISTENT_STATE_UNUSABLE, ALREADY_RUNNING
   */
  own(): void {
    if (this.#lockFd !== undefined) return;
    let fd: number;
    try {
      mkdirSync(this.path, { recursive: true, mode: 0o700 });
      fd = openSync(join(this.path, "lock"), constants.O_RDWR | constants.O_CREAT, 0o600);
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

  /** What an earlier daemon was about to write: nobody of this one writes yet. */
  #removeUnfinished(): void {
    for (const file of this.#files().filter((name) => name.endsWith(UNFINISHED_SUFFIX))) {
      try {
        unlinkSync(this.file(file));
      } catch {
        // It is in nobody's way: it is replaced, or tried again at the next start.
      }
    }
  }

  /** This boot, linked to the one before where the directory is owned. */
  boot(): Promise<BootMark> {
    if (this.#lockFd === undefined) return Promise.resolve(UNKNOWN_BOOT);
    this.#boot ??= chainBoot({
      read: () => readFile(this.file("lock"), "utf8"),
      write: (text) => this.#writeLock(text),
    });
    return this.#boot;
  }

  /** In place, as the lock is on the file; a half of it has the wrong checksum. */
  async #writeLock(text: string): Promise<void> {
    const handle = await open(this.file("lock"), "r+");
    try {
      await handle.truncate();
      await handle.write(text, 0);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  /** Gives the directory up; what is in it stays. */
  close(): void {
    if (this.#lockFd !== undefined) closeSync(this.#lockFd);
    this.#lockFd = undefined;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Writes or replaces a record. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  async writeRecord(name: string, value: unknown): Promise<void> {
    const path = this.file(name + SUFFIX);
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
    return this.removeFile(name + SUFFIX);
  }

  /** Removes a file for good; one that is not there is no error. */
  async removeFile(name: string): Promise<void> {
    try {
      await unlink(this.file(name));
      await syncDirectory(this.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw unusable(this.file(name), error);
    }
  }

  /** All records whose names begin so, in order of name. @throws ControlError PERSISTENT_STATE_UNUSABLE */
  async readRecords(prefix: string): Promise<FoundRecord[]> {
    if (!this.exists) return [];
    const names = this.#files().filter((file) => file.startsWith(prefix) && file.endsWith(SUFFIX));
    return Promise.all(names.sort().map((file) => this.#readRecord(file)));
  }

  #files(): string[] {
    try {
      return readdirSync(this.path);
    } catch (error) {
      throw unusable(this.path, error);
    }
  }

  async #readRecord(file: string): Promise<FoundRecord> {
    const name = file.slice(0, -SUFFIX.length);
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
