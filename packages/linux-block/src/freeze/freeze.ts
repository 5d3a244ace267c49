/**
 * Freezing file systems: a frozen one is in a consistent state on its device and holds new changes
 * back until it is thawed.
 */
import { errnoName, errnoNumber } from "@blksnap/errors";
import { LinuxBlockError } from "../errors.js";
import { stackAbove } from "../stack/block-stack.js";
import { within } from "../within.js";
import { type FreezeEntry, type FreezeReport, openEntries } from "./freeze-entry.js";
import { type FreezeAnswer, FreezeGuard } from "./freeze-guard.js";
import type { FreezeSystem } from "./freeze-system.js";

/** Limit of each part of the search; nothing is frozen meanwhile. */
const SEARCH_TIMEOUT_MS = 5_000;
/** Limit of a sync while other file systems are frozen. */
const SYNC_AGAIN_MAX_MS = 2_000;
const THAW_TIMEOUT_MS = 10_000;
/** When a freeze hangs: the others are thawed by then, and the guard stays for the hanging one. */
const HANGING_THAW_TIMEOUT_MS = 3_000;
/** The guard's own limit comes after all limits of the take. */
const SPARE_MS = 5_000;

/** Messages of fsfreeze in the C locale, and musl's if they differ. */
const ERRNO_OF_MESSAGE: Readonly<Record<string, string>> = {
  "Device or resource busy": "EBUSY",
  "Resource busy": "EBUSY",
  "Operation not supported": "EOPNOTSUPP",
  "Not supported": "EOPNOTSUPP",
  "Inappropriate ioctl for device": "ENOTTY",
  "Not a tty": "ENOTTY",
  "Operation not permitted": "EPERM",
  "Permission denied": "EACCES",
  "Input/output error": "EIO",
  "I/O error": "EIO",
  "Structure needs cleaning": "EUCLEAN",
  "Cannot send after transport endpoint shutdown": "ESHUTDOWN",
  "No space left on device": "ENOSPC",
  "Read-only file system": "EROFS",
  "Cannot allocate memory": "ENOMEM",
  "Out of memory": "ENOMEM",
};
/** Errors of a file system that an error has shut down. A successful sync of it means nothing. */
const BROKEN: readonly (string | null)[] = ["EIO", "EUCLEAN", "ESHUTDOWN", "EROFS"];

/** The used part of pino's logger. */
export interface FreezeLogger {
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export interface FreezeOptions {
  readonly logger: FreezeLogger;
  /** How long the file systems may have to stay frozen. */
  readonly holdMs: number;
  /** Fail unless every file system with data on the devices is frozen. */
  readonly isRequired?: boolean;
  readonly system: FreezeSystem;
}

/** Guards with a hanging freeze or thaw: they still thaw their file systems when it returns. */
const unfinished = new Set<FreezeGuard>();

/**
 * The file systems of one take, frozen together and always thawed together.
 *
 * ```
 *   find ─▶ sync all ─▶ level by level, from the top:  freeze ─▶ sync again what cannot be frozen
 * ```
 *
 * A file system that cannot be frozen keeps writing, so its image has what was written before the last sync. That
 * sync comes as late as possible: after its level is frozen, but before any file system below it, and before writes
 * to the originals are held. A sync waits for its own writes to reach the original: later, it would wait for the
 * thaw, which waits for it. Its limit keeps a writer that is faster than the disk from keeping the others frozen:
 * then the first sync counts.
 */
export class FreezeGroup {
  readonly #logger: FreezeLogger;
  readonly #holdMs: number;
  readonly #isRequired: boolean;
  readonly #system: FreezeSystem;
  /** From the top level down. */
  #entries: readonly FreezeEntry[] = [];
  /** File systems with a descriptor, by the guard's index. */
  #guarded: readonly FreezeEntry[] = [];
  /** Indices of file systems that we have to thaw, or may have to. */
  readonly #frozen = new Set<number>();
  #guard: FreezeGuard | undefined;
  /** A freeze exceeded its limit and is still running. */
  #hanging = false;
  #heldUntilMs = Number.POSITIVE_INFINITY;

  constructor(options: FreezeOptions) {
    this.#logger = options.logger;
    this.#holdMs = options.holdMs;
    this.#isRequired = options.isRequired ?? false;
    this.#system = options.system;
  }

  /** The result of each file system with data on the devices, the one frozen last first. */
  get report(): readonly FreezeReport[] {
    return this.#entries.map(({ report }) => report).reverse();
  }

  /**
   * Freezes the file systems with data on these devices. If it throws, call thaw() all the same, because some may be
   * frozen.
   * @param devices "major:minor" of block devices
   * @param timeoutMs for all of them together
   * @throws LinuxBlockError FREEZE_TIMEOUT, FREEZE_FAILED
   */
  async freeze(devices: Iterable<string>, timeoutMs: number): Promise<void> {
    await this.#awaitEarlier(timeoutMs);
    const bare = await this.#find(devices);
    const deadlineMs = performance.now() + timeoutMs;
    await this.#syncBefore(bare, timeoutMs / 2);
    if (this.#guarded.length > 0) {
      const limitMs = deadlineMs - performance.now() + this.#holdMs + SPARE_MS;
      this.#heldUntilMs = performance.now() + limitMs;
      this.#guard = this.#startGuard(Math.ceil(limitMs / 1000));
    }
    for (const level of new Set(this.#entries.map((entry) => entry.level))) {
      const entries = this.#entries.filter((entry) => entry.level === level);
      for (const entry of entries) {
        if (entry.fd !== undefined) await this.#freezeOne(entry, deadlineMs, timeoutMs);
      }
      await this.#syncAgain(entries, (deadlineMs - performance.now()) / 2);
    }
    this.#conclude();
  }

  /**
   * Proves that everything was frozen up to now.
   * @throws LinuxBlockError FREEZE_TIMEOUT if the guard has thawed, or may have
   */
  assertHeld(): void {
    if (this.#guard === undefined) return;
    if (this.#guard.alive && performance.now() < this.#heldUntilMs) return;
    throw timeout("the file systems were thawed before the snapshot was taken");
  }

  /** Thaws everything, even what freezes only after its time limit. Never throws. */
  async thaw(): Promise<void> {
    const guard = this.#guard;
    this.#guard = undefined;
    if (guard !== undefined) await this.#finish(guard);
    for (const entry of this.#guarded) entry.close();
    this.#guarded = [];
  }

  /** Otherwise a file system that an earlier take's guard is about to thaw would count as frozen. */
  async #awaitEarlier(timeoutMs: number): Promise<void> {
    const earlier = Promise.all([...unfinished].map(({ ended }) => ended));
    if ((await within(earlier, timeoutMs)) !== undefined) return;
    throw timeout("a freeze or thaw of an earlier take still hangs");
  }

  /** Returns the nodes of devices without a known file system. */
  async #find(devices: Iterable<string>): Promise<readonly string[]> {
    const members = [...devices];
    // NBD exports have no block device: a search of all mount namespaces starts a process.
    if (members.length === 0) return [];
    try {
      const elsewhere = await this.#system.readElsewhere(SEARCH_TIMEOUT_MS);
      if (!elsewhere.isComplete) {
        const text = "not all mount namespaces were searched: some file systems may not be frozen";
        this.#logger.warn({ timeoutMs: SEARCH_TIMEOUT_MS }, text);
      }
      const stack = stackAbove(members, this.#system, elsewhere);
      const { entries, bare } = await openEntries(stack, this.#system, SEARCH_TIMEOUT_MS);
      this.#entries = entries;
      this.#guarded = entries.filter(({ fd }) => fd !== undefined);
      return bare;
    } catch (cause) {
      throw failure("cannot look for file systems", cause);
    }
  }

  /** Nothing is frozen yet: data that are written now, a freeze need not write while it keeps users waiting. */
  async #syncBefore(bare: readonly string[], timeoutMs: number): Promise<void> {
    const entries = this.#entries.filter(({ syncPath }) => syncPath !== undefined);
    await this.#sync(entries, bare, timeoutMs);
  }

  /** See the class comment: nothing below them is frozen yet. */
  async #syncAgain(level: readonly FreezeEntry[], timeoutMs: number): Promise<void> {
    const left = level.filter(({ state, syncPath }) => state === "not" && syncPath !== undefined);
    await this.#sync(left, [], Math.min(timeoutMs, SYNC_AGAIN_MAX_MS));
    for (const entry of left) {
      if (entry.syncStatus === 0 && !BROKEN.includes(entry.why)) entry.state = "synced";
    }
  }

  async #sync(
    entries: readonly FreezeEntry[],
    bare: readonly string[],
    timeoutMs: number,
  ): Promise<void> {
    const paths = [...entries.map(({ syncPath }) => syncPath as string), ...bare];
    if (paths.length === 0 || timeoutMs <= 0) return;
    const statuses = await this.#system.sync(paths, timeoutMs).catch((error: Error) => {
      this.#logger.warn({ err: error }, "file systems could not be synced");
      return [];
    });
    for (const [index, entry] of entries.entries()) {
      const status = statuses[index];
      // A successful sync has written its data for good.
      if (entry.syncStatus !== 0 || status === 0) entry.syncStatus = status;
    }
  }

  #startGuard(limitS: number): FreezeGuard {
    const places = this.#guarded.map(({ fd }) => fd as number);
    try {
      return new FreezeGuard(this.#system.freezeProgram, places, limitS, (index, message) => {
        const name = this.#guarded[index]?.name;
        this.#logger.error({ name, message }, `${name} could not be thawed: ${message}`);
      });
    } catch (cause) {
      throw failure("cannot start the freeze guard", cause);
    }
  }

  async #freezeOne(entry: FreezeEntry, deadlineMs: number, timeoutMs: number): Promise<void> {
    const index = this.#guarded.indexOf(entry);
    const guard = this.#guard as FreezeGuard;
    this.#frozen.add(index);
    const answer = await within(guard.freeze(index), deadlineMs - performance.now());
    if (answer === undefined) {
      this.#hanging = true;
      throw timeout(`freezing ${entry.name} took longer than ${timeoutMs} ms`);
    }
    this.#judge(entry, index, answer);
  }

  #judge(entry: FreezeEntry, index: number, answer: FreezeAnswer): void {
    if (answer.frozen) {
      entry.state = "frozen";
      return;
    }
    // Unknown without its result.
    if (this.#guard?.alive !== true) {
      throw new LinuxBlockError("FREEZE_FAILED", `cannot freeze ${entry.name}: ${answer.message}`);
    }
    this.#frozen.delete(index);
    const errno = ERRNO_OF_MESSAGE[answer.message] ?? answer.message;
    // Another program has frozen it, and will thaw it.
    if (errno === "EBUSY") entry.state = "frozen";
    entry.why = errno === "EBUSY" ? "frozen already, by another program" : errno;
  }

  /** @throws LinuxBlockError FREEZE_FAILED */
  #conclude(): void {
    for (const entry of this.#entries) {
      if (entry.state === "frozen") continue;
      const { device, name, type, state, syncStatus } = entry;
      if (state === "not" && syncStatus !== 0) {
        const sync = syncStatus === undefined ? "not tried" : errnoName(syncStatus);
        entry.why = `${entry.why}, and its sync: ${sync}`;
      }
      const { why } = entry;
      const text = `${name} (${type ?? "mounted nowhere"}) is ${state === "synced" ? "synced, " : ""}not frozen`;
      this.#logger.warn({ device, problem: why }, `${text} for the snapshot: ${why}`);
      if (this.#isRequired) throw new LinuxBlockError("FREEZE_FAILED", `${text}: ${why}`);
    }
  }

  async #finish(guard: FreezeGuard): Promise<void> {
    guard.thaw();
    const limitMs = this.#hanging ? HANGING_THAW_TIMEOUT_MS : THAW_TIMEOUT_MS;
    const clean = await within(guard.ended, limitMs);
    if (clean === undefined) {
      leave(guard);
      this.#logger.warn({ guard: guard.pid }, "a file system is still being frozen or thawed");
      return;
    }
    if (clean || this.#frozen.size === 0) return;
    this.#logger.error(
      { guard: guard.pid },
      "the freeze guard was killed; thawing with another one",
    );
    let next: FreezeGuard;
    try {
      next = this.#startGuard(Math.ceil(THAW_TIMEOUT_MS / 1000));
    } catch (error) {
      this.#logger.error({ err: error }, "file systems stay frozen: thaw them with fsfreeze -u");
      return;
    }
    for (const index of this.#frozen) next.adopt(index);
    next.thaw();
    if ((await within(next.ended, THAW_TIMEOUT_MS)) === undefined) leave(next);
  }
}

function timeout(message: string): LinuxBlockError {
  return new LinuxBlockError("FREEZE_TIMEOUT", message);
}

function leave(guard: FreezeGuard): void {
  unfinished.add(guard);
  void guard.ended.then(() => unfinished.delete(guard));
  guard.abandon();
}

function failure(what: string, cause: unknown): LinuxBlockError {
  if (cause instanceof LinuxBlockError) return cause;
  const { code = "EIO" } = cause as NodeJS.ErrnoException;
  return new LinuxBlockError("FREEZE_FAILED", `${what}: ${code}`, {
    errno: errnoNumber(code),
    cause,
  });
}
