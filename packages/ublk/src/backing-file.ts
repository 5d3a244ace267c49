import {
  close as closeCallback,
  closeSync,
  constants,
  fstat as fstatCallback,
  fstatSync,
  open as openCallback,
  openSync,
  read as readCallback,
  readSync,
  type Stats,
  statSync,
} from "node:fs";
import { promisify } from "node:util";
import { EBUSY, EINVAL, EISDIR, ENOTBLK, ETIMEDOUT, errnoName } from "@blksnap/errors";
import { isStacked, keyOfNumber, queueAttribute } from "@blksnap/linux-block";
import {
  bounded,
  ioctl,
  LockType,
  MappedMemory,
  openInHelper,
  PAGE_BYTES,
  statInHelper,
  tryLockFile,
  tryLockFileAsync,
} from "@blksnap/uring";
import { UblkError } from "./errors.js";
import type { DeviceParams } from "./layout.js";

const { O_RDONLY, O_RDWR, O_DIRECT, O_EXCL, S_IFMT, S_IFBLK, S_IFREG, S_IFDIR } = constants;
const O_CLOEXEC = 0o2000000;

const openFdBeside = promisify(openCallback);
const fstatBeside = promisify(fstatCallback) as (fd: number) => Promise<Stats>;
const readBeside = promisify(readCallback);
const closeFdBeside = promisify(closeCallback);
const OPEN_TIMEOUT_MS = 30_000;
const CLOSE_TIMEOUT_MS = 10_000;

/** ioctls of `include/uapi/linux/fs.h`. */
const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKPBSZGET = 0x127b;
const BLKIOMIN = 0x1278;
const BLKIOOPT = 0x1279;
const BLKGETSIZE64 = 0x80081272;

/** In which files may take direct I/O. */
const ALIGNMENTS = [512, 4096] as const;

/** Most that one discard or write-zeroes request may cover. */
const DISCARD_MAX_BYTES = 16 * 1024 * 1024;

/** The block device or regular file behind a ublk device. */
export interface BackingFile {
  readonly path: string;
  readonly fd: number;
  readonly kind: "block" | "file";
  /** Device number: its own (block device), or that of the file system that it lies on. */
  readonly deviceNumber: number;
  readonly inode: number;
  readonly params: DeviceParams;
}

export interface OpenBackingOptions {
  readonly readOnly?: boolean;
}

/**
 * Opens a block device (exclusively: it is not mounted, and no other program opens it exclusively) or a
 * regular file (locked for writing) past the page cache, and reads its limits.
 * @throws UblkError BACKING_NOT_FOUND, BACKING_BUSY (EBUSY), BACKING_UNSUPPORTED (not a block device
 * or regular file; empty; no direct I/O), BACKING_FAILED (not permitted, read-only, an I/O error)
 */
export function openBackingFile(path: string, options: OpenBackingOptions = {}): BackingFile {
  const readOnly = options.readOnly ?? false;
  const { mode } = told(path, () => statSync(path));
  const kind = kindOf(path, mode);
  const fd = told(path, () => openSync(path, openFlags(kind, readOnly)));
  try {
    const alignmentBytes = kind === "file" ? directIoAlignment(fd, path) : 0;
    const stat = fstatSync(fd);
    assertKept(path, kind, stat);
    if (kind === "file" && !tryLockFile(fd, lockType(readOnly))) throw locked(path);
    return described({ path, fd, kind }, stat, readOnly, alignmentBytes);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** An open that the caller waits for. */
interface Opening {
  /** What would have to answer now; undefined while another process asks. */
  place: string | undefined;
}

/** Opens that were given up and have not ended: each keeps one of the few threads that all file operations share. */
const late = new Set<Opening>();

/**
 * Like openBackingFile(), without blocking the calling thread: another thread waits for the device or file system,
 * with a time limit. If the open succeeds after that, it is closed at once; until then, opens on the same device or
 * file system fail at once.
 */
export function openBackingFileBeside(
  path: string,
  options: OpenBackingOptions = {},
): Promise<BackingFile> {
  const its: Opening = { place: undefined };
  const opening = openBeside(path, options.readOnly ?? false, its);
  return bounded(opening, OPEN_TIMEOUT_MS, () => {
    late.add(its);
    void opening
      .then(({ fd }) => closeFdBeside(fd))
      .catch(() => undefined)
      .finally(() => late.delete(its));
    return noAnswer(path);
  });
}

async function openBeside(path: string, readOnly: boolean, its: Opening): Promise<BackingFile> {
  const { kind, place } = await lookedAt(path);
  if ([...late].some((one) => one.place === place)) throw noAnswer(path);
  its.place = place;
  const flags = openFlags(kind, readOnly);
  const fd = await openFdBeside(path, flags).catch((error) => fail(path, error));
  try {
    const alignmentBytes = kind === "file" ? await directIoAlignmentBeside(fd, path) : 0;
    const stat = await fstatBeside(fd);
    assertKept(path, kind, stat);
    if (kind === "file" && !(await tryLockFileAsync(fd, lockType(readOnly)))) throw locked(path);
    return described({ path, fd, kind }, stat, readOnly, alignmentBytes);
  } catch (error) {
    await closeFdBeside(fd).catch(() => undefined);
    throw error;
  }
}

/** Looks at the path in another process, which may wait for it forever. */
async function lookedAt(
  path: string,
): Promise<{ readonly kind: BackingFile["kind"]; readonly place: string }> {
  const found = await statInHelper(path, OPEN_TIMEOUT_MS);
  if (typeof found === "number") return fail(path, withErrno(found));
  const kind = kindOf(path, found.mode);
  // Of a file, names and attributes may be in memory.
  const status = kind === "file" ? await openInHelper(path, OPEN_TIMEOUT_MS) : 0;
  if (status === -ETIMEDOUT) throw noAnswer(path);
  return { kind, place: `${kind} ${kind === "block" ? found.special : found.device}` };
}

function withErrno(status: number): NodeJS.ErrnoException {
  const code = errnoName(status);
  return Object.assign(new Error(code), { code, errno: status });
}

function noAnswer(path: string): UblkError {
  return new UblkError("BACKING_FAILED", `${path} does not answer`, ETIMEDOUT);
}

/**
 * Closes it on another thread: the file system may have to answer.
 * @throws UblkError BACKING_FAILED: ETIMEDOUT if it is closed later, when that answers
 */
export async function closeBackingFile({
  path,
  fd,
}: Pick<BackingFile, "path" | "fd">): Promise<void> {
  const closing = closeFdBeside(fd).catch((error) => fail(path, error));
  await bounded(closing, CLOSE_TIMEOUT_MS, () => noAnswer(path));
}

function openFlags(kind: BackingFile["kind"], readOnly: boolean): number {
  const exclusive = kind === "block" ? O_EXCL : 0;
  return (readOnly ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC | exclusive;
}

/** The path may have another meaning since it was looked at. */
function assertKept(path: string, kind: BackingFile["kind"], stat: Stats): void {
  if (kindOf(path, stat.mode) === kind) return;
  throw new UblkError("BACKING_FAILED", `${path} was replaced while it was opened`);
}

function lockType(readOnly: boolean): number {
  return readOnly ? LockType.READ : LockType.WRITE;
}

function locked(path: string): UblkError {
  return new UblkError("BACKING_BUSY", `${path} is locked by another program`, EBUSY);
}

/** The open and claimed file, with its limits. If this fails, the caller closes it. */
function described(
  { path, fd, kind }: Pick<BackingFile, "path" | "fd" | "kind">,
  { dev, ino, rdev, size }: Stats,
  readOnly: boolean,
  alignmentBytes: number,
): BackingFile {
  const params =
    kind === "block"
      ? blockParams(fd, rdev, readOnly)
      : fileParams(alignmentBytes, size, dev, readOnly);
  if (params.capacityBytes === 0) {
    throw new UblkError("BACKING_UNSUPPORTED", `${path} is empty`, EINVAL);
  }
  return { path, fd, kind, deviceNumber: kind === "block" ? rdev : dev, inode: ino, params };
}

function kindOf(path: string, mode: number): "block" | "file" {
  const type = mode & S_IFMT;
  if (type === S_IFBLK) return "block";
  if (type === S_IFREG) return "file";
  const what = type === S_IFDIR ? "a directory" : "not a block device or regular file";
  const errno = type === S_IFDIR ? EISDIR : ENOTBLK;
  throw new UblkError("BACKING_UNSUPPORTED", `${path} is ${what}`, errno);
}

/** Makes a system call on the path, and translates its failure into this package's errors. */
function told<Value>(path: string, call: () => Value): Value {
  try {
    return call();
  } catch (error) {
    throw explain(path, error as NodeJS.ErrnoException);
  }
}

function fail(path: string, error: unknown): never {
  throw explain(path, error as NodeJS.ErrnoException);
}

function explain(path: string, error: NodeJS.ErrnoException): UblkError {
  const errno = Math.abs(error.errno ?? 0);
  switch (error.code) {
    case "ENOENT":
    case "ENXIO":
    case "ENODEV":
      return new UblkError("BACKING_NOT_FOUND", `${path} does not exist`, errno, error);
    case "EBUSY":
      return new UblkError(
        "BACKING_BUSY",
        `${path} is in use: mounted, or held by another program or device`,
        errno,
        error,
      );
    case "EINVAL":
      return new UblkError(
        "BACKING_UNSUPPORTED",
        `the file system of ${path} takes no direct I/O`,
        errno,
        error,
      );
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new UblkError(
        "BACKING_FAILED",
        `cannot open ${path}: not permitted, or read-only`,
        errno,
        error,
      );
    default:
      return new UblkError("BACKING_FAILED", `cannot use ${path}`, errno, error);
  }
}

function ioctlInt(fd: number, request: number): number {
  const value = new Int32Array(1);
  ioctl(fd, request, value);
  return value[0];
}

/**
 * Bytes that the device or file has at this moment: `params` says what it had when it was opened. It waits for the file
 * system of a file without a bound.
 */
export async function presentCapacityBytes({ fd, kind, params }: BackingFile): Promise<number> {
  if (kind === "block") return blockCapacityBytes(fd);
  const { size } = await fstatBeside(fd);
  return size - (size % params.logicalBlockBytes);
}

function blockCapacityBytes(fd: number): number {
  const size = new BigUint64Array(1);
  ioctl(fd, BLKGETSIZE64, size);
  return Number(size[0]);
}

function blockParams(fd: number, rdev: number, readOnly: boolean): DeviceParams {
  const logicalBlockBytes = ioctlInt(fd, BLKSSZGET);
  const number = keyOfNumber(rdev);
  const queue = (name: string): string => queueAttribute(number, name) ?? "";
  const discardMax = Number(queue("discard_max_bytes") || 0);
  const zeroesMax = Number(queue("write_zeroes_max_bytes") || 0);
  return {
    capacityBytes: blockCapacityBytes(fd),
    logicalBlockBytes,
    physicalBlockBytes: Math.max(logicalBlockBytes, ioctlInt(fd, BLKPBSZGET)),
    ioMinBytes: powerOfTwo(ioctlInt(fd, BLKIOMIN), logicalBlockBytes),
    ioOptBytes: powerOfTwo(ioctlInt(fd, BLKIOOPT), logicalBlockBytes),
    readOnly: readOnly || ioctlInt(fd, BLKROGET) !== 0,
    rotational: queue("rotational") === "1",
    // A volume can move to other disks while it is in use, as by pvmove(8): without this the kernel would drop its users'
    // flushes for as long as the front lives. A flush that the disks do not need ends there at once.
    volatileCache: queue("write_cache") === "write back" || isStacked(number),
    // Where a disk has none, the kernel flushes it after a durable write; it needs no flush of the front for that.
    fua: true,
    discardMaxBytes: Math.min(discardMax, DISCARD_MAX_BYTES),
    discardGranularityBytes: Number(queue("discard_granularity") || logicalBlockBytes),
    writeZeroesMaxBytes: zeroesMax > 0 ? DISCARD_MAX_BYTES : 0,
    pageAlignmentBytes: pageAlignmentBytes(number),
  };
}

/**
 * The memory alignment that a device needs, if it accepts pages that may change while they are written, such as those
 * of a page cache. A device with checksums or parities (`stable_writes`) does not: the owners of pages that pass
 * through a front do not learn of it. Files without a queue (btrfs, which has checksums, NFS) do not qualify.
 */
function pageAlignmentBytes(number: string): number | undefined {
  const attribute = (name: string): number => Number(queueAttribute(number, name) ?? Number.NaN);
  const alignmentBytes = attribute("dma_alignment") + 1;
  const isKnown = Number.isInteger(Math.log2(alignmentBytes)) && alignmentBytes <= PAGE_BYTES;
  return isKnown && attribute("stable_writes") === 0 ? alignmentBytes : undefined;
}

function powerOfTwo(bytes: number, leastBytes: number): number {
  return bytes >= leastBytes && Number.isInteger(Math.log2(bytes)) ? bytes : leastBytes;
}

function fileParams(
  logicalBlockBytes: number,
  sizeBytes: number,
  dev: number,
  readOnly: boolean,
): DeviceParams {
  return {
    capacityBytes: sizeBytes - (sizeBytes % logicalBlockBytes),
    logicalBlockBytes,
    physicalBlockBytes: 4096,
    ioMinBytes: 4096,
    ioOptBytes: 4096,
    readOnly,
    rotational: queueAttribute(keyOfNumber(dev), "rotational") === "1",
    pageAlignmentBytes: pageAlignmentBytes(keyOfNumber(dev)),
    // The file's data and metadata reach the disk with fdatasync only.
    volatileCache: true,
    fua: false,
    discardMaxBytes: DISCARD_MAX_BYTES,
    discardGranularityBytes: 4096,
    writeZeroesMaxBytes: DISCARD_MAX_BYTES,
  };
}

/** The smallest unit of direct I/O on the file: 512 bytes if the disk below allows it. */
function directIoAlignment(fd: number, path: string): number {
  const memory = MappedMemory.anonymous(8192);
  try {
    for (const alignment of ALIGNMENTS) {
      try {
        readSync(fd, alignedBytes(memory, alignment), 0, alignment, alignment);
        return alignment;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EINVAL") fail(path, error);
      }
    }
  } finally {
    memory.unmap();
  }
  throw noDirectIo(path);
}

async function directIoAlignmentBeside(fd: number, path: string): Promise<number> {
  const memory = MappedMemory.anonymous(8192);
  try {
    for (const alignment of ALIGNMENTS) {
      try {
        await readBeside(fd, alignedBytes(memory, alignment), 0, alignment, alignment);
        return alignment;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EINVAL") fail(path, error);
      }
    }
  } finally {
    memory.unmap();
  }
  throw noDirectIo(path);
}

function alignedBytes(memory: MappedMemory, alignment: number): Uint8Array {
  return new Uint8Array(memory.buffer, alignment % 4096, alignment);
}

function noDirectIo(path: string): UblkError {
  const what = `${path} takes no direct I/O of 4096 bytes`;
  return new UblkError("BACKING_UNSUPPORTED", what, EINVAL);
}
