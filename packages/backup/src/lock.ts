/**
 * A lock on files of a folder: one process writes them. It is a file with the process in it, made with link(2), which also
 * works over NFS.
 *
 * A lock of a process of this boot that has ended is taken over: so a killed export does not block the next.
 */
import { randomUUID } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { type Files, realFiles } from "./files.js";
import { busy, holderNow, lifeOf, parseHolder } from "./holder.js";

const SUFFIX = ".lock";
const ATTEMPTS_MAX = 5;

export class FileLock {
  readonly #path: string;
  readonly #files: Files;
  readonly #text: string;

  private constructor(files: Files, path: string, text: string) {
    this.#files = files;
    this.#path = path;
    this.#text = text;
  }

  /**
   * @param name of the lock, without slashes
   * @param what for messages: "export of /dev/sdb"
   * @throws BackupError BACKUP_BUSY
   */
  static async take(folder: string, name: string, what: string): Promise<FileLock> {
    const path = join(folder, `${name}${SUFFIX}`);
    const lock = new FileLock(realFiles, path, JSON.stringify(holderNow(what)));
    await lock.#take(folder);
    return lock;
  }

  async release(): Promise<void> {
    const text = (await this.#files.read(this.#path))?.toString();
    if (text === this.#text) await this.#files.remove(this.#path);
  }

  async #take(folder: string): Promise<void> {
    const own = join(folder, `${randomUUID()}.new`);
    await this.#files.create(own, Buffer.from(this.#text));
    try {
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        if (await this.#files.link(own, this.#path)) return;
        const text = (await this.#files.read(this.#path))?.toString();
        if (text === undefined) continue;
        const holder = parseHolder(text);
        if (holder === undefined || lifeOf(holder) !== "gone") throw busy(this.#path, holder);
        await this.#putAside(folder, text);
      }
      throw busy(this.#path, undefined);
    } finally {
      await this.#files.remove(own);
    }
  }

  /** Removes the lock with this text, and no other that has come in its place meanwhile. */
  async #putAside(folder: string, text: string): Promise<void> {
    const aside = join(folder, `${randomUUID()}.old`);
    await this.#files.rename(this.#path, aside).catch(() => undefined);
    const moved = (await this.#files.read(aside))?.toString();
    if (moved !== undefined && moved !== text) await this.#files.link(aside, this.#path);
    await this.#files.remove(aside);
  }
}

/**
 * Runs `use` while nothing else writes the copy with this record.
 * @param what for messages: "an export to /backup/copy"
 * @throws BackupError BACKUP_BUSY
 */
export async function withTargetLock<Result>(
  record: string,
  what: string,
  use: () => Promise<Result>,
): Promise<Result> {
  const name = `.${basename(record)}`;
  const lock = await FileLock.take(dirname(record), name, what);
  try {
    return await use();
  } finally {
    await lock.release();
  }
}
