import { CachedBytes } from "./cached-bytes.js";
import { Errno, SystemError } from "./errno.js";
import { checkRange, type Io, type IoOwner, Medium, type MediumParts } from "./medium.js";
import { deviceOf, type FileSystem, Mode, Node } from "./nodes.js";
import type { OpenFile } from "./process.js";

/** ioctls of block devices. */
const Ioctl = {
  BLKROGET: 0x125e,
  BLKFLSBUF: 0x1261,
  BLKSSZGET: 0x1268,
  BLKPG: 0x1269,
  BLKIOMIN: 0x1278,
  BLKIOOPT: 0x1279,
  BLKPBSZGET: 0x127b,
  BLKGETSIZE64: 0x80081272,
} as const;

/** What sysfs shows of a block device, besides its size. */
export interface BlockLimits {
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly hasVolatileCache: boolean;
  readonly hasFua: boolean;
  readonly isReadOnly: boolean;
  readonly isRotational: boolean;
  readonly discardMaxBytes: number;
  readonly discardGranularityBytes: number;
  readonly writeZeroesMaxBytes: number;
  /** For example, because it keeps checksums of its data. */
  readonly needsStablePages?: boolean;
}

export abstract class BlockDevice extends Node {
  readonly name: string;
  readonly major: number;
  readonly minor: number;
  readonly limits: BlockLimits;
  capacityBytes: number;
  readonly openers: Set<OpenFile> = new Set();
  /** The name that a disk keeps across reboots. */
  readonly serial: string | undefined = undefined;

  constructor(
    fs: FileSystem,
    name: string,
    [major, minor]: readonly [number, number],
    capacityBytes: number,
    limits: BlockLimits,
  ) {
    super(fs, Mode.BLOCK | 0o660, deviceOf(major, minor));
    this.name = name;
    this.major = major;
    this.minor = minor;
    this.capacityBytes = capacityBytes;
    this.limits = limits;
  }

  /** Text of /sys/block/…/stat. */
  abstract get counters(): { readonly read: number; readonly write: number; discard: number };

  override open(open: OpenFile): void {
    if (open.isExclusive && [...this.openers].some(({ isExclusive }) => isExclusive)) {
      throw new SystemError(Errno.EBUSY, "open", open.path);
    }
    this.openers.add(open);
  }

  override close(open: OpenFile): void {
    this.openers.delete(open);
  }

  /** @returns 0, or the errno of I/O that the kernel refuses at once */
  check(io: Io, open: OpenFile): number {
    const { logicalBlockBytes, isReadOnly } = this.limits;
    const alignment = open.isDirect || io.kind !== "read" ? logicalBlockBytes : 1;
    if (isReadOnly && io.kind !== "read" && io.kind !== "sync") return -Errno.EPERM;
    if (io.kind === "discard" && this.limits.discardMaxBytes === 0) return -Errno.EOPNOTSUPP;
    return checkRange(io, this.capacityBytes, alignment);
  }

  override ioctl(request: number, argument: ArrayBufferView | number): number {
    const { limits } = this;
    switch (request) {
      case Ioctl.BLKROGET:
        return answer(argument, limits.isReadOnly ? 1 : 0);
      case Ioctl.BLKSSZGET:
        return answer(argument, limits.logicalBlockBytes);
      case Ioctl.BLKPBSZGET:
      case Ioctl.BLKIOMIN:
        return answer(argument, limits.physicalBlockBytes);
      case Ioctl.BLKIOOPT:
        return answer(argument, 0);
      case Ioctl.BLKGETSIZE64:
        return answer(argument, this.capacityBytes);
      case Ioctl.BLKPG:
      case Ioctl.BLKFLSBUF:
        return 0;
      default:
        return -Errno.ENOTTY;
    }
  }
}

function answer(argument: ArrayBufferView | number, value: number): number {
  if (typeof argument === "number") return -Errno.EFAULT;
  const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
  view.setUint32(0, value, true);
  if (argument.byteLength >= 8) view.setUint32(4, Math.floor(value / 2 ** 32), true);
  return 0;
}

export interface DiskOptions {
  readonly sizeBytes: number;
  readonly logicalBlockBytes?: number;
  /** Writes may be lost until a flush; default true. */
  readonly hasVolatileCache?: boolean;
  readonly hasFua?: boolean;
  /** For example, because it keeps checksums of its data; default false. */
  readonly needsStablePages?: boolean;
  /** 0: no discard; default 16 MiB. */
  readonly discardMaxBytes?: number;
  /** Default: made from its name. */
  readonly serial?: string;
}

/** A disk of the machine: it survives processes and, except for its cache, power cuts. */
export class SimDisk extends BlockDevice {
  readonly medium: Medium;
  readonly content: CachedBytes;
  override readonly serial: string;

  constructor(
    fs: FileSystem,
    name: string,
    numbers: readonly [number, number],
    options: DiskOptions,
    parts: MediumParts,
  ) {
    const logicalBlockBytes = options.logicalBlockBytes ?? 512;
    super(fs, name, numbers, options.sizeBytes, {
      logicalBlockBytes,
      physicalBlockBytes: 4096,
      hasVolatileCache: options.hasVolatileCache ?? true,
      hasFua: options.hasFua ?? false,
      needsStablePages: options.needsStablePages ?? false,
      isReadOnly: false,
      isRotational: false,
      discardMaxBytes: options.discardMaxBytes ?? 2 ** 24,
      discardGranularityBytes: 4096,
      writeZeroesMaxBytes: 2 ** 24,
    });
    this.serial = options.serial ?? `SIM-${name}`;
    this.medium = new Medium(name, parts);
    this.content = new CachedBytes(options.sizeBytes, false, parts.random);
  }

  /** As a volume that is extended, or a disk of a cloud. */
  grow(sizeBytes: number): void {
    this.content.resizeForGood(sizeBytes);
    this.capacityBytes = sizeBytes;
  }

  /** A copy of the disk's content, including its cache. */
  get bytes(): Uint8Array {
    return this.content.copy();
  }

  override get counters(): { read: number; write: number; discard: number } {
    return this.medium.sectors;
  }

  override start(io: Io, open: OpenFile, owner: IoOwner | undefined): number {
    const status = this.check(io, open);
    if (status < 0) return status;
    this.medium.submit(io, this.content, owner);
    return 0;
  }
}
