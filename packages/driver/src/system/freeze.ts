/**
 * Freezing file systems: a frozen one is in a consistent state on its device and holds new changes
 * back until it is thawed.
 */
import { closeSync, constants, openSync, readFileSync } from "node:fs";
import type { Mount } from "@blksnap/diff-storage";
import { ControlError } from "../control/control-error.js";
import { type FileSystem, fileSystemsAbove } from "./block-stack.js";
import { type FreezeAnswer, FreezeGuard } from "./freeze-guard.js";
import { reachableMountPoint, type SystemView, USERS_VIEW } from "./mounts.js";

/** Opens a place without asking its file system for anything (fcntl.h; Node has no name for it). */
const O_PATH = 0o10000000;
const THAW_TIMEOUT_MS = 10_000;
/** When a freeze hangs: the others are thawed by then, and the guard stays for that one. */
const HANGING_THAW_TIMEOUT_MS = 3_000;
/** The guard's own limit comes after all limits of the take. */
const SPARE_MS = 5_000;

/** What fsfreeze says in the C locale, and musl's words where they differ. */
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
  "No space left on device": "ENOSPC",
  "Read-only file system": "EROFS",
  "Cannot allocate memory": "ENOMEM",
  "Out of memory": "ENOMEM",
};
const UNSUPPORTED = ["EOPNOTSUPP", "ENOTTY"];

/** The part of pino's logger that is used here. */
export interface FreezeLogger {
  warn(details: object, message: string): void;
  error(details: object, message: string): void;
}

export interface FreezeOptions {
  readonly logger: FreezeLogger;
  /** How long the file systems may have to stay frozen once they are. */
  readonly holdMs: number;
  readonly view?: SystemView;
}

/** A file system of the group and the open directory that leads to it. */
interface Opened {
  readonly fileSystem: FileSystem;
  readonly mountPoint: string;
  readonly fd: number;
}

/** Guards that were left to a freeze or thaw that hangs: what they hold is not frozen for good. */
const unfinished = new Set<FreezeGuard>();

/** The file systems of one take, frozen together and always thawed together. */
export class FreezeGroup {
  readonly #logger: FreezeLogger;
  readonly #holdMs: number;
  readonly #view: SystemView;
  readonly #opened: Opened[] = [];
  /** Indices of those that are ours to thaw, or may be. */
  readonly #frozen = new Set<number>();
  #guard: FreezeGuard | undefined;
  /** A freeze did not end in time and is still under way. */
  #hanging = false;
  #heldUntilMs = Number.POSITIVE_INFINITY;

  constructor(options: FreezeOptions) {
    this.#logger = options.logger;
    this.#holdMs = options.holdMs;
    this.#view = options.view ?? USERS_VIEW;
  }

  /**
   * Freezes the file systems with data on these devices. When it throws, thaw() must still be
   * called: some of them may be frozen.
   * @param devices "major:minor" of block devices
   * @param timeoutMs for all of them together
   * @throws ControlError FREEZE_TIMEOUT, FREEZE_FAILED
   */
  async freeze(devices: Iterable<string>, timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    await this.#awaitEarlier(timeoutMs);
    for (const fileSystem of fileSystemsAbove(devices, this.#view)) this.#open(fileSystem);
    if (this.#opened.length === 0) return;
    const limitMs = deadlineMs - performance.now() + this.#holdMs + SPARE_MS;
    this.#heldUntilMs = performance.now() + limitMs;
    this.#guard = this.#startGuard(Math.ceil(limitMs / 1000));
    for (const [index, { mountPoint }] of this.#opened.entries()) {
      this.#frozen.add(index);
      const answer = await within(this.#guard.freeze(index), deadlineMs - performance.now());
      if (answer === undefined) {
        this.#hanging = true;
        throw timeout(`freezing ${mountPoint} took longer than ${timeoutMs} ms`);
      }
      this.#judge(index, answer);
    }
  }

  /**
   * Proves that everything was frozen up to now.
   * @throws ControlError FREEZE_TIMEOUT when the guard has thawed, or may have
   */
  assertHeld(): void {
    if (this.#guard === undefined) return;
    if (this.#guard.alive && performance.now() < this.#heldUntilMs) return;
    throw timeout("the file systems were thawed before the snapshot was taken");
  }

  /** Thaws everything, also what becomes frozen only after its time limit. Never throws. */
  async thaw(): Promise<void> {
    const guard = this.#guard;
    this.#guard = undefined;
    if (guard !== undefined) await this.#finish(guard);
    for (const { fd } of this.#opened.splice(0)) closeSync(fd);
  }

  /** A file system that an earlier take's guard is about to thaw would pass for a frozen one. */
  async #awaitEarlier(timeoutMs: number): Promise<void> {
    const earlier = Promise.all([...unfinished].map(({ ended }) => ended));
    if ((await within(earlier, timeoutMs)) !== undefined) return;
    throw timeout("a freeze or thaw of an earlier take still hangs");
  }

  /** Opens the file system through the first of its mounts that can be reached. */
  #open(fileSystem: FileSystem): void {
    let problem = "no such mount";
    for (const mount of fileSystem.mounts) {
      try {
        const fd = openMount(this.#view, mount);
        if (fd === undefined) problem = "something else is mounted over it";
        else return void this.#opened.push({ fileSystem, mountPoint: mount.mountPoint, fd });
      } catch (error) {
        problem = (error as Error).message;
      }
    }
    this.#skip(fileSystem, problem);
  }

  #startGuard(limitS: number): FreezeGuard {
    const directories = this.#opened.map(({ fd }) => fd);
    try {
      return new FreezeGuard(directories, limitS, (index, message) => {
        const mountPoint = this.#opened[index]?.mountPoint;
        this.#logger.error(
          { mountPoint, message },
          `${mountPoint} could not be thawed: ${message}`,
        );
      });
    } catch (cause) {
      const { code = "EIO" } = cause as NodeJS.ErrnoException;
      const what = `cannot start the freeze guard: ${code}`;
      throw new ControlError("FREEZE_FAILED", what, { errnoName: code, cause });
    }
  }

  #judge(index: number, answer: FreezeAnswer): void {
    const { fileSystem, mountPoint } = this.#opened[index] as Opened;
    if (answer.frozen) return;
    // Without its answer nobody knows.
    if (this.#guard?.alive) this.#frozen.delete(index);
    const errnoName = ERRNO_OF_MESSAGE[answer.message];
    // Frozen by somebody else, who will thaw it.
    if (errnoName === "EBUSY") return;
    if (errnoName !== undefined && UNSUPPORTED.includes(errnoName)) {
      this.#skip(fileSystem, errnoName);
      return;
    }
    throw new ControlError(
      "FREEZE_FAILED",
      `cannot freeze ${mountPoint}: ${errnoName ?? answer.message}`,
      errnoName === undefined ? {} : { errnoName },
    );
  }

  #skip({ device, mounts: [mount] }: FileSystem, problem: string): void {
    const { mountPoint, fsType } = mount as Mount;
    this.#logger.warn(
      { device, mountPoint, fsType, problem },
      `${mountPoint} (${fsType}) is not frozen for the snapshot: ${problem}`,
    );
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

function timeout(message: string): ControlError {
  return new ControlError("FREEZE_TIMEOUT", message);
}

function leave(guard: FreezeGuard): void {
  unfinished.add(guard);
  void guard.ended.then(() => unfinished.delete(guard));
  guard.abandon();
}

/**
 * The directory at a mount point; undefined when its name leads to another mount.
 * @throws as openSync does, ENOTDIR for a mount of a single file
 */
function openMount(view: SystemView, mount: Mount): number | undefined {
  const fd = openSync(reachableMountPoint(view, mount), O_PATH | constants.O_DIRECTORY);
  const info = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
  if (Number(/^mnt_id:\s*(\d+)/m.exec(info)?.[1]) === mount.id) return fd;
  closeSync(fd);
  return undefined;
}

/** Undefined when the work has not ended in time. */
async function within<Value>(work: Promise<Value>, timeoutMs: number): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), Math.max(0, timeoutMs));
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
