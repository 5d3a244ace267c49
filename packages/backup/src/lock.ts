/**
 * A lock for a writer of files in a folder: a file that names the process, created by link(2), which also works over
 * NFS.
 *
 * A lock of a process of this boot that has ended is taken over, so that a killed export does not block the next.
 * Another process may do the same, and a third one may link its own lock meanwhile, which must not be mistaken for
 * the stale one. So only the process that has linked a second lock may remove it, whose name is derived from the text
 * of the stale one, which is unique.
 *
 * ```
 *   NAME.lock           the lock
 *   NAME.lock.ID.over   right to remove the lock with the text of this ID; if it is stale, it is removed in the same
 *   way
 * ```
 */
import { createHash, randomUUID } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { errnoNameOf } from "@blksnap/errors";
import { BackupError } from "./errors.js";
import { type Files, realFiles } from "./files.js";
import { busy, holderNow, lifeOf, parseHolder } from "./holder.js";

const SUFFIX = ".lock";
const OVER = ".over";
const ID_CHARACTERS = 32;
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
  static async acquire(
    folder: string,
    name: string,
    what: string,
    files: Files = realFiles,
  ): Promise<FileLock> {
    const path = join(folder, `${name}${SUFFIX}`);
    const lock = new FileLock(files, path, JSON.stringify(holderNow(what)));
    await lock.#acquire(folder);
    return lock;
  }

  async release(): Promise<void> {
    const text = (await this.#files.read(this.#path))?.toString();
    if (text === this.#text) await this.#files.remove(this.#path);
  }

  async #acquire(folder: string): Promise<void> {
    const own = join(folder, `${randomUUID()}.new`);
    try {
      await this.#create(own, folder);
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        if (await this.#files.link(own, this.#path)) return;
        await this.#removeDead(this.#path, own);
      }
      throw busy(this.#path, undefined);
    } finally {
      await this.#files.remove(own);
    }
  }

  /** The file's name means nothing to users. */
  async #create(own: string, folder: string): Promise<void> {
    try {
      await this.#files.create(own, Buffer.from(this.#text));
    } catch (error) {
      if (!(error instanceof BackupError)) throw error;
      const { cause, code } = error;
      const errno = errnoNameOf(cause);
      // In some existing folders nothing can be created, such as /proc.
      if (errno !== "ENOENT" || (await this.#files.look(folder)) !== undefined) {
        const why = `can't create files in ${folder} (${errno})`;
        throw new BackupError(code, why, { hint: error.hint, cause });
      }
      const hint = "Create it, or name another place";
      throw new BackupError("TARGET_FAILED", `there is no folder ${folder}`, { hint, cause });
    }
  }

  /**
   * Removes a stale lock.
   * @param own linked then @throws BackupError BACKUP_BUSY: its process is alive, or unknown
   */
  async #removeDead(path: string, own: string): Promise<void> {
    const text = (await this.#files.read(path))?.toString();
    if (text === undefined) return;
    const holder = parseHolder(text);
    if (holder === undefined || lifeOf(holder) !== "gone") throw busy(path, holder);
    const id = createHash("sha256").update(text).digest("hex").slice(0, ID_CHARACTERS);
    const over = `${this.#path}.${id}${OVER}`;
    if (!(await this.#files.link(own, over))) return this.#removeDead(over, own);
    // Only this process removes it now; it may be removed already.
    const now = (await this.#files.read(path))?.toString();
    if (now === text) await this.#files.remove(path);
    await this.#files.remove(over);
  }
}

/**
 * Runs `use` while nothing else writes the copy of this record.
 * @param what for messages: "an export to /backup/copy"
 * @throws BackupError BACKUP_BUSY
 */
export async function withTargetLock<Result>(
  record: string,
  what: string,
  use: () => Promise<Result>,
): Promise<Result> {
  const name = `.${basename(record)}`;
  const lock = await FileLock.acquire(dirname(record), name, what);
  try {
    return await use();
  } finally {
    await lock.release();
  }
}
