import type { Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { describeFailure, errnoNameOf } from "@blksnap/errors";
import { DiffStorageError, type DiffStorageErrorCode } from "./errors.js";
import { FileStore, type FileStoreParts } from "./file-store.js";
import { OPEN_CREATE, OPEN_DIRECT, OPEN_EXCLUSIVE } from "./open-flags.js";
import { checkSlotBytes, DEFAULT_SLOT_BYTES, limitSlots } from "./slot.js";
import type { Store } from "./store.js";
import {
  isDevice,
  kindAtPath,
  kindByWord,
  type PathStoreKind,
  STORE_KINDS,
  type WordStoreKind,
} from "./store-kinds.js";
import type { StoreSystem } from "./system.js";

/** Alignment if the kernel does not report what direct I/O needs: the page size. */
const ASSUMED_ALIGNMENT_BYTES = 4096;

/** How to open a store. */
export interface OpenStoreOptions {
  readonly system: StoreSystem;
  /** Size of a slot; a store must hold one. Default 256 KiB. */
  readonly slotBytes?: number;
  /** Most bytes this store may take, at least one slot. Default: no limit of its own. */
  readonly limitBytes?: number;
  /** "auto": direct I/O where store and alignment allow it; "never": through the page cache. */
  readonly directIo?: "auto" | "never";
  /**
   * Alignment that all I/O to the store will have: the logical block size of the original, a power
   * of two. Direct I/O is only used where that is enough. Default 512.
   */
  readonly requiredAlignmentBytes?: number;
  /**
   * For a directory: make a file with this name, mode 0600, instead of an unnamed one. It survives the process, as
   * recovery needs, and is removed when the store is closed.
   */
  readonly fileName?: string;
  /**
   * Reopens what an earlier process of this user has left: a named file must exist, nothing is tried out on it, and no
   * limit applies to what it has.
   */
  readonly reopen?: boolean;
}

/** An open descriptor, and how it was opened. */
interface Opened {
  readonly handle: FileHandle | number;
  readonly directIo: boolean;
  readonly alignmentBytes: number;
}

/**
 * Opens a store for old data. Its kind follows from `path`: a regular file, which must exist; a directory, which gets
 * an unnamed file; a block device; or a word such as "memory".
 *
 * Rejects with DiffStorageError; leaves nothing open in that case.
 */
export async function openStore(path: string, options: OpenStoreOptions): Promise<Store> {
  const slotBytes = options.slotBytes ?? DEFAULT_SLOT_BYTES;
  checkSlotBytes(slotBytes);
  limitSlots(options.limitBytes, slotBytes);
  const word = kindByWord(path);
  if (word !== undefined) return openMade(path, word, options);
  if (path === "" || path.includes("\0")) {
    throw new DiffStorageError(
      "ARGUMENT_INVALID",
      "a store's path must not be empty or contain NUL",
    );
  }
  const absolute = resolve(path);
  const left = options.reopen === true ? options.fileName : undefined;
  const first = left === undefined ? absolute : namedFile(absolute, options);
  await call(absolute, () => options.system.assertAnswers?.(first));
  const kind = kindOf(await statStore(absolute), absolute);
  const { isMade } = STORE_KINDS[kind];
  const filePath = isMade ? namedFile(absolute, options) : absolute;
  const opened = await openAligned(filePath, kind, options).catch((error: DiffStorageError) => {
    const isNew = isMade && options.reopen !== true;
    throw isNew && error.code === "STORE_NOT_FOUND" ? noNewFiles(absolute, error) : error;
  });
  const parts = { ...opened, kind, path: absolute, ...partsOf(options) };
  const named = isMade && filePath !== absolute;
  const store = new FileStore({ ...parts, removePath: named ? filePath : undefined });
  try {
    await prepare(store, absolute, slotBytes, options);
    await store.prepareToAsk();
  } catch (error) {
    await store.close(options.reopen === true);
    throw error;
  }
  return store;
}

async function openMade(
  word: string,
  kind: WordStoreKind,
  options: OpenStoreOptions,
): Promise<Store> {
  const fd = await call(word, () => STORE_KINDS[kind].make(options.system));
  const parts: FileStoreParts = {
    handle: fd,
    directIo: false,
    alignmentBytes: 1,
    kind,
    path: word,
    removePath: undefined,
    ...partsOf(options),
  };
  const store = new FileStore(parts);
  try {
    await store.inspect();
  } catch (error) {
    await store.close(false);
    throw toStoreError(error, word);
  }
  return store;
}

/** For procfs, sysfs and the like, which exist but accept no files. */
function noNewFiles(path: string, cause: Error): DiffStorageError {
  const text = `no file can be made in ${path}; choose a directory on ext4, xfs, btrfs or tmpfs`;
  return new DiffStorageError("STORE_KIND_UNSUPPORTED", text, { path, cause });
}

function partsOf(options: OpenStoreOptions): { system: StoreSystem; limitBytes: number } {
  return { system: options.system, limitBytes: options.limitBytes ?? Number.POSITIVE_INFINITY };
}

function namedFile(directory: string, options: OpenStoreOptions): string {
  const { fileName } = options;
  if (fileName === undefined) return directory;
  if (/^[^/\0]+$/.test(fileName) && fileName !== "." && fileName !== "..") {
    return `${directory}/${fileName}`;
  }
  throw new DiffStorageError("ARGUMENT_INVALID", `not a file name: ${JSON.stringify(fileName)}`);
}

async function statStore(path: string): Promise<Stats> {
  return call(path, () => stat(path));
}

function kindOf(stats: Stats, path: string): PathStoreKind {
  const kind = kindAtPath(stats);
  if (kind !== undefined) return kind;
  const text = `${path} is neither a regular file, a directory nor a block device; choose one of these`;
  throw new DiffStorageError("STORE_KIND_UNSUPPORTED", text, { path });
}

/** Opens with direct I/O if that works with the alignment that the I/O will have. */
async function openAligned(
  path: string,
  kind: PathStoreKind,
  options: OpenStoreOptions,
): Promise<Opened> {
  const how = { named: options.fileName !== undefined, reopen: options.reopen === true };
  const flags = STORE_KINDS[kind].openFlags(how);
  const required = options.requiredAlignmentBytes ?? 512;
  if (options.directIo !== "never") {
    const direct = await tryDirect(path, flags, options.system, required);
    if (direct !== undefined) return direct;
  }
  // The attempt with direct I/O may have created the named file.
  const again = options.directIo === "never" ? flags : flags & ~createFlags(flags);
  const handle = await call(path, () => open(path, again, 0o600)).catch((error: unknown) => {
    const gone = again !== flags && (error as DiffStorageError).code === "STORE_NOT_FOUND";
    if (!gone) throw error;
    return call(path, () => open(path, flags, 0o600));
  });
  return { handle, directIo: false, alignmentBytes: 1 };
}

function createFlags(flags: number): number {
  return (flags & OPEN_CREATE) === 0 ? 0 : OPEN_CREATE | OPEN_EXCLUSIVE;
}

async function tryDirect(
  path: string,
  flags: number,
  system: StoreSystem,
  requiredBytes: number,
): Promise<Opened | undefined> {
  const handle = await call(path, () => open(path, flags | OPEN_DIRECT, 0o600)).catch(
    (error: unknown) => {
      // EINVAL means that the file system has no direct I/O.
      if (errnoNameOf((error as DiffStorageError).cause) === "EINVAL") return undefined;
      throw error;
    },
  );
  if (handle === undefined) return undefined;
  try {
    const said = await system.statDirectIo?.(handle.fd);
    const alignmentBytes = said?.offsetAlignmentBytes ?? ASSUMED_ALIGNMENT_BYTES;
    const memoryBytes = said?.memoryAlignmentBytes ?? ASSUMED_ALIGNMENT_BYTES;
    const usable = alignmentBytes > 0 && Math.max(alignmentBytes, memoryBytes) <= requiredBytes;
    if (usable) {
      return { handle, directIo: true, alignmentBytes: Math.max(alignmentBytes, memoryBytes) };
    }
  } catch (error) {
    await handle.close();
    throw toStoreError(error, path);
  }
  await handle.close();
  return undefined;
}

/** Checks what is open, which may differ from what `stat` saw, and claims it. */
async function prepare(
  store: FileStore,
  path: string,
  slotBytes: number,
  options: OpenStoreOptions,
): Promise<void> {
  const { system } = options;
  const stats = await store.inspect();
  const medium = stats.isFile() ? "file" : stats.isBlockDevice() ? "device" : "other";
  if (medium !== STORE_KINDS[store.kind].medium) {
    const text = `${path} was replaced while it was opened; try again`;
    throw new DiffStorageError("STORE_KIND_UNSUPPORTED", text, { path });
  }
  if (isDevice(store.kind)) {
    const bytes = await call(path, () => system.blockDeviceSizeBytes(store.fd));
    store.setDeviceSize(bytes);
    if (bytes >= slotBytes) return;
    const text = `${path} has ${bytes} bytes, less than one slot of ${slotBytes}; use a larger device`;
    throw new DiffStorageError("STORE_TOO_SMALL", text, { path, availableBytes: bytes });
  }
  // If others may write to the directory, a file with that name may be a trap.
  if (STORE_KINDS[store.kind].isMade && stats.uid !== process.geteuid!()) {
    const text = `${path}: the file there belongs to user ${stats.uid}, so it is not ours`;
    throw new DiffStorageError("STORE_PERMISSION", text, { path });
  }
  if (store.named) await call(path, () => system.lockFile(store.fd));
  if (options.reopen === true) return;
  await probeGrowth(store, path, slotBytes);
}

/** Finds out now whether the file system can preallocate, rather than when space runs short. */
async function probeGrowth(store: FileStore, path: string, slotBytes: number): Promise<void> {
  if (store.openedBytes + slotBytes > store.limitBytes) return;
  try {
    await store.preallocate(store.openedBytes, slotBytes);
    await store.trim(store.openedBytes);
  } catch (error) {
    await store.trim(store.openedBytes).catch(() => undefined);
    const name = errnoNameOf(error);
    // If the disk is full, the first growth reports that, and how much it needs.
    if (name === "ENOSPC" || name === "EDQUOT") return;
    throw toStoreError(error, path);
  }
}

const CODE_OF_ERRNO: Readonly<Record<string, DiffStorageErrorCode>> = {
  ENOENT: "STORE_NOT_FOUND",
  ENOTDIR: "STORE_NOT_FOUND",
  EBUSY: "STORE_BUSY",
  EAGAIN: "STORE_BUSY",
  EEXIST: "STORE_BUSY",
  ETXTBSY: "STORE_BUSY",
  EROFS: "STORE_READ_ONLY",
  EACCES: "STORE_PERMISSION",
  EPERM: "STORE_PERMISSION",
  ENOSPC: "STORE_FULL",
  EDQUOT: "STORE_FULL",
  EOPNOTSUPP: "STORE_NOT_GROWABLE",
  EISDIR: "STORE_NOT_GROWABLE",
  ETIMEDOUT: "STORE_TIMEOUT",
};

const ADVICE: Readonly<Partial<Record<DiffStorageErrorCode, string>>> = {
  STORE_NOT_FOUND: "does not exist; create the file, or name a directory to get an unnamed one",
  STORE_BUSY: "is in use; unmount or release it, or choose another store",
  STORE_READ_ONLY: "lies on a read-only file system; choose a writable one",
  STORE_PERMISSION: "may not be opened for writing; check its permissions and read-only flags",
  STORE_FULL: "lies on a full file system; free space there or choose another one",
  STORE_NOT_GROWABLE:
    "lies on a file system without fallocate or unnamed files; choose ext4, xfs, btrfs or tmpfs",
  STORE_TIMEOUT: "does not answer in time; choose a store on a device that answers",
};

/** Turns a system call's failure on a store into an error that says what to do. */
export function toStoreError(error: unknown, path: string): DiffStorageError {
  if (error instanceof DiffStorageError) return error;
  const name = errnoNameOf(error);
  const code = CODE_OF_ERRNO[name] ?? "STORE_IO";
  const advice = ADVICE[code] ?? "failed; see the errno and the kernel's log";
  const text = `${path} ${advice} (${describeFailure(error)})`;
  return new DiffStorageError(code, text, { path, cause: error });
}

async function call<T>(path: string, run: () => T | Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw toStoreError(error, path);
  }
}
