import { close as closeFd, fstat, ftruncate, type Stats } from "node:fs";
import { type FileHandle, open, rename, statfs, unlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { type DeviceNumber, deviceNumber, identityOfStats } from "@blksnap/linux-block";
import { assert, DiffStorageError } from "./errors.js";
import type { Store, StorePresence } from "./store.js";
import type { StoreKind } from "./store-kinds.js";
import { isDevice, STORE_KINDS } from "./store-kinds.js";
import { FALLOCATE_KEEP_SIZE, FALLOCATE_PUNCH_HOLE, type StoreSystem } from "./system.js";

const fstatFd = promisify(fstat) as (fd: number) => Promise<Stats>;
const truncateFd = promisify(ftruncate) as (fd: number, lengthBytes: number) => Promise<void>;
const closeDescriptor = promisify(closeFd);

/** Unit of `st_blocks`, whatever the file system's block size. */
const STAT_BLOCK_BYTES = 512;
/** It accepts direct I/O for files with checksums, and answers it from its cache. */
const BTRFS = 0x9123_683e;
const TMPFS = 0x0102_1994;

/**
 * File systems (magic numbers of statfs) that count preallocated space until it is freed. Others count later, or after
 * compression (ZFS, bcachefs), or as their server does (NFS).
 */
const COUNTING_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0xef53, // ext4
  0x5846_5342, // XFS
  BTRFS,
  TMPFS,
]);

/** The parts of a store. */
export interface FileStoreParts {
  /** Node's handle, or the bare descriptor of a file in memory. Closed by the store. */
  readonly handle: FileHandle | number;
  readonly directIo: boolean;
  readonly alignmentBytes: number;
  readonly kind: StoreKind;
  readonly path: string;
  /** File to remove on close. */
  readonly removePath: string | undefined;
  readonly system: StoreSystem;
  readonly limitBytes: number;
}

/** The store behind every kind: a descriptor, and how to manage its space. */
export class FileStore implements Store {
  readonly kind: StoreKind;
  readonly path: string;
  readonly fd: number;
  directIo: boolean;
  alignmentBytes: number;
  readonly limitBytes: number;
  readonly growable: boolean;
  readonly punchable: boolean;
  device: DeviceNumber = { major: 0, minor: 0 };
  identity: string = "";
  openedBytes = 0;
  #handle: FileHandle | number;
  #removePath: string | undefined;
  #system: StoreSystem;
  #fileSystem: number | undefined;
  /** A second open file, only to ask about lost writes. */
  #askedFile: FileHandle | undefined;
  #renaming: Promise<void> | undefined;
  #closed = false;

  constructor(parts: FileStoreParts) {
    this.kind = parts.kind;
    this.path = parts.path;
    this.fd = typeof parts.handle === "number" ? parts.handle : parts.handle.fd;
    this.directIo = parts.directIo;
    this.alignmentBytes = parts.alignmentBytes;
    this.limitBytes = parts.limitBytes;
    this.growable = !isDevice(parts.kind);
    this.punchable = !isDevice(parts.kind);
    this.#handle = parts.handle;
    this.#removePath = parts.removePath;
    this.#system = parts.system;
  }

  /** Whether others can open the same file or device by a name. */
  get named(): boolean {
    return STORE_KINDS[this.kind].isNamed || this.#removePath !== undefined;
  }

  /**
   * Opens a file of its own to ask about lost writes: the kernel reports them once per open file, to whatever comes
   * first, and syncs or synced writes by `fd` would take the report away, or lose it to the question. Without it, `fd`
   * is asked.
   */
  async prepareToAsk(): Promise<void> {
    if (this.#system.hasLostWrites === undefined) return;
    this.#askedFile = await open(`/proc/self/fd/${this.fd}`, "r").catch(() => undefined);
  }

  /** Reads size, device and identity from the descriptor. */
  async inspect(): Promise<Stats> {
    const stats = await fstatFd(this.fd);
    this.device = deviceNumber(stats.isBlockDevice() ? stats.rdev : stats.dev);
    this.identity = identityOfStats(stats);
    if (stats.isFile()) this.openedBytes = stats.size;
    return stats;
  }

  /** Sets what `inspect` cannot see: the size of a block device in bytes. */
  setDeviceSize(bytes: number): void {
    assert(isDevice(this.kind), "only devices have a device size");
    this.openedBytes = bytes;
  }

  async allowAlignment(bytes: number): Promise<void> {
    if (!this.directIo || this.alignmentBytes <= bytes) return;
    if (this.#system.endDirectIo === undefined) {
      const what = `${this.path} needs I/O aligned to ${this.alignmentBytes} bytes, not ${bytes}`;
      throw new DiffStorageError("STORE_KIND_UNSUPPORTED", what, { path: this.path });
    }
    await this.#system.endDirectIo(this.fd);
    this.directIo = false;
    this.alignmentBytes = 1;
  }

  async preallocate(offsetBytes: number, lengthBytes: number): Promise<void> {
    if (isDevice(this.kind)) return;
    await this.#system.fallocate(this.fd, 0, offsetBytes, lengthBytes);
  }

  async isInMemory(): Promise<boolean> {
    return !isDevice(this.kind) && (await this.#typeOfFileSystem()) === TMPFS;
  }

  async trim(endBytes: number): Promise<void> {
    if (isDevice(this.kind)) return;
    await truncateFd(this.fd, Math.max(endBytes, this.openedBytes));
  }

  async punch(offsetBytes: number, lengthBytes: number): Promise<void> {
    assert(this.punchable, "devices are not punched");
    const mode = FALLOCATE_KEEP_SIZE | FALLOCATE_PUNCH_HOLE;
    await this.#system.fallocate(this.fd, mode, offsetBytes, lengthBytes);
  }

  async presence(): Promise<StorePresence | undefined> {
    if (!this.named || isDevice(this.kind)) return undefined;
    const { size, blocks } = await fstatFd(this.fd);
    const isCounting = COUNTING_FILE_SYSTEMS.has(await this.#typeOfFileSystem());
    const allocatedBytes = isCounting ? blocks * STAT_BLOCK_BYTES : undefined;
    return { sizeBytes: size, allocatedBytes };
  }

  async hasLostWrites(): Promise<boolean> {
    if (this.#system.hasLostWrites === undefined) return false;
    // Programs that read a file meanwhile can make direct I/O look as if something had been lost.
    if (this.directIo && (await this.#typeOfFileSystem()) !== BTRFS) return false;
    return this.#system.hasLostWrites(this.#askedFile?.fd ?? this.fd);
  }

  /** By the descriptor, because the name may be gone, or lead elsewhere. -1 if it is unknown. */
  async #typeOfFileSystem(): Promise<number> {
    try {
      this.#fileSystem ??= (await statfs(`/proc/self/fd/${this.fd}`)).type;
      return this.#fileSystem;
    } catch {
      return -1;
    }
  }

  async availableBytes(): Promise<number | undefined> {
    if (!STORE_KINDS[this.kind].isOnFileSystem) return undefined;
    const info = await statfs(this.path);
    // A file system that reports no blocks at all says nothing about free ones either.
    return info.blocks === 0 ? undefined : info.bavail * info.bsize;
  }

  async rename(fileName: string, onRenamed: () => void): Promise<void> {
    if (this.#removePath === undefined || this.#closed) {
      throw new Error(`${this.path} has no file with a name of ours`);
    }
    this.#renaming = this.#rename(this.#removePath, join(this.path, fileName));
    await this.#renaming;
    if (!this.#closed) onRenamed();
    const directory = await open(this.path);
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  }

  async #rename(before: string, after: string): Promise<void> {
    await rename(before, after);
    this.#removePath = after;
  }

  async close(keepNamedFile: boolean): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Otherwise the file would stay under the name that it is about to get.
    await this.#renaming?.catch(() => undefined);
    if (this.#removePath !== undefined && !keepNamedFile) {
      await unlink(this.#removePath).catch(() => undefined);
    }
    await this.#askedFile?.close().catch(() => undefined);
    if (typeof this.#handle === "number") await closeDescriptor(this.#handle);
    else await this.#handle.close();
  }
}
