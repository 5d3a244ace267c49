/**
 * Write access to a store. Exports of different devices run concurrently; operations that remove chunks run alone.
 *
 * Each process writes a lock with its own name, and then reads the others: of two that meet, at least one gives
 * up, and a store only needs to support reads, writes and lists.
 *
 * ```
 *   locks/NAME.TOKEN.lock     the process that requests NAME, or holds it; rewritten every five minutes
 *
 *   write "asking" ─▶ read ─▶ alone: write "held"
 *     ▲                │
 *     └─ wait ◀────────┤ the other asks with a greater token: it gives up when it reads, or says that it holds
 *                      ╰ the other holds, or asks with a lesser token: give up
 * ```
 *
 * A lock is removed when its process has ended, as far as that can be known: on this host. Another host's lock is
 * removed when it was not written for half an hour, by the clock of the store. A process that was suspended for that
 * long fails before it changes anything, by `check` and `checkTime`.
 */
import { setTimeout } from "node:timers/promises";
import { BackupError } from "./errors.js";
import { busy, type Holder, holderNow, lifeOf, parseHolder } from "./holder.js";
import { type Moment, msSince, now } from "./moment.js";
import type { Objects } from "./objects.js";

const FOLDER = "locks/";
const SUFFIX = ".lock";
const EXPIRY_MS = 30 * 60_000;
const RENEWAL_MS = 5 * 60_000;
/** After this time without a renewal, its holder changes nothing any more. */
const TRUSTED_MS = 20 * 60_000;
/** Time limit of a request: whether another host's process lives is unknown. */
const ASKING_MAX_MS = 60_000;
const PAUSE_MS = 20;

const WAIT = `: it expires ${EXPIRY_MS / 60_000} minutes after its last renewal`;

type State = "asking" | "held";

/** Why a lock cannot be acquired. */
interface Conflict {
  readonly path: string;
  readonly token: string;
  readonly holder: Holder | undefined;
  readonly isAsking: boolean;
}

function dataOf(holder: Holder, state: State): Buffer {
  return Buffer.from(JSON.stringify({ ...holder, state }));
}

/** The name and token of a lock, from its key. */
function partsOf(key: string): { readonly name: string; readonly token: string } | undefined {
  if (!key.startsWith(FOLDER) || !key.endsWith(SUFFIX)) return undefined;
  const [name = "", token = ""] = key.slice(FOLDER.length, -SUFFIX.length).split(".");
  return { name, token };
}

export class StoreLock {
  /** Key of its file or object. */
  readonly path: string;
  readonly #objects: Objects;
  readonly #key: string;
  readonly #holder: Holder;
  #data: Buffer;
  #written: Moment = now();
  #timer: NodeJS.Timeout | undefined;
  #renewing: Promise<void> | undefined;

  private constructor(objects: Objects, name: string, what: string) {
    const holder = holderNow(what);
    this.#objects = objects;
    this.#holder = holder;
    this.#key = `${FOLDER}${name}.${holder.token}${SUFFIX}`;
    this.#data = dataOf(holder, "asking");
    this.path = objects.pathOf(this.#key);
  }

  /**
   * @param name of the lock, of letters, digits and dashes; one process holds it at a time
   * @param what for messages: "export of /dev/sdb"
   * @param excludes whether the lock with another name must not be held at the same time
   * @throws BackupError BACKUP_BUSY
   */
  static async acquire(
    objects: Objects,
    name: string,
    what: string,
    excludes: (other: string) => boolean,
  ): Promise<StoreLock> {
    const lock = new StoreLock(objects, name, what);
    try {
      await lock.#write();
      await lock.#waitForOthers((other) => other === name || excludes(other));
      await lock.#hold();
    } catch (error) {
      await lock.release();
      throw error;
    }
    lock.#timer = setInterval(() => lock.#renew(), RENEWAL_MS).unref();
    return lock;
  }

  /** Call it before anything irreversible: it fails if the lock was removed, or may have been. */
  async check(): Promise<void> {
    this.checkTime();
    const data = await this.#objects.get(this.#key);
    if (data === undefined || !data.equals(this.#data)) throw this.#lost("was taken away");
    // That may have taken long: a later renewal would restore a lock that has expired and was removed.
    this.checkTime();
  }

  /** Like `check`, without reading the store: fails if others may believe by now that this process is gone. */
  checkTime(): void {
    if (msSince(this.#written) > TRUSTED_MS)
      throw this.#lost("was not renewed in time: this program was suspended");
  }

  /** If the store is unreachable the lock expires, and an earlier failure is reported. */
  async release(): Promise<void> {
    clearInterval(this.#timer);
    await this.#renewing;
    await this.#objects.remove(this.#key).catch(() => undefined);
  }

  #lost(why: string): BackupError {
    const hint = "Run it again when nothing else writes there";
    return new BackupError("BACKUP_BUSY", `the lock ${this.path} ${why}`, { hint });
  }

  async #write(): Promise<void> {
    const begun = now();
    await this.#objects.put(this.#key, this.#data);
    this.#written = begun;
  }

  async #hold(): Promise<void> {
    // The lock of a process that was suspended since its check may have expired.
    this.checkTime();
    this.#data = dataOf(this.#holder, "held");
    await this.#write();
  }

  /** Failures are retried by the next renewal, and finally detected by `checkTime`. */
  #renew(): void {
    this.#renewing ??= this.check()
      .then(() => this.#write())
      .catch(() => undefined)
      .finally(() => {
        this.#renewing = undefined;
      });
  }

  /**
   * Of two that meet, the one with the lesser token waits until the other has given up, or holds the lock. Speed only
   * affects how long that takes, never that one of them gets it.
   */
  async #waitForOthers(excludes: (other: string) => boolean): Promise<void> {
    for (const begun = now(); ; ) {
      const conflict = await this.#conflict(excludes);
      if (conflict === undefined) return;
      const { path, holder, token, isAsking } = conflict;
      const isWorthIt = isAsking && token > this.#holder.token && msSince(begun) < ASKING_MAX_MS;
      if (!isWorthIt) throw busy(path, holder, WAIT);
      await setTimeout(PAUSE_MS);
    }
  }

  /**
   * The first lock that conflicts. Stale ones are removed as they are found, so that a kill in the middle has made
   * progress.
   */
  async #conflict(excludes: (other: string) => boolean): Promise<Conflict | undefined> {
    const own = await this.#objects.look(this.#key);
    if (own === undefined) throw this.#lost("was taken away");
    let isListed = false;
    for await (const { key, modifiedMs } of this.#objects.list(FOLDER)) {
      if (key === this.#key) isListed = true;
      const parts = partsOf(key);
      if (parts === undefined || key === this.#key || !excludes(parts.name)) continue;
      const data = await this.#objects.get(key);
      if (data === undefined) continue;
      const holder = parseHolder(data.toString());
      const life = holder === undefined ? "unknown" : lifeOf(holder);
      const isExpired = life === "unknown" && own.modifiedMs - modifiedMs > EXPIRY_MS;
      if (life !== "gone" && !isExpired) {
        const isAsking = holder !== undefined && "state" in holder && holder.state === "asking";
        return { path: this.#objects.pathOf(key), token: parts.token, holder, isAsking };
      }
      await this.#objects.remove(key);
    }
    if (!isListed) throw this.#lost("is not in the list of what was written there");
    return undefined;
  }
}
