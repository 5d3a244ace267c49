/** The nodes that paths lead to. */
import { CachedBytes } from "./cached-bytes.js";
import { Errno, SystemError } from "./errno.js";
import { Io, type IoOwner, type Medium } from "./medium.js";
import type { OpenFile, SimProcess } from "./process.js";
import type { Random } from "./random.js";
import type { SimRing } from "./sim-ring.js";

export const Mode = {
  FIFO: 0o010000,
  CHARACTER: 0o020000,
  DIRECTORY: 0o040000,
  BLOCK: 0o060000,
  FILE: 0o100000,
  LINK: 0o120000,
} as const;

/** Device number of stat(2), from a device's two numbers. */
export function deviceOf(major: number, minor: number): number {
  return (minor & 0xff) + (major & 0xfff) * 256 + (minor >>> 8) * 2 ** 20;
}

/** A file system: what its names and files share. */
export class FileSystem {
  readonly device: number;
  readonly medium: Medium;
  /** Lost in a power cut, as tmpfs is. */
  readonly isVolatile: boolean;
  capacityBytes: number = 2 ** 40;
  /** As statfs(2) has it: that of ext4. */
  type: number = 0xef53;
  /** Represents what a sync of a directory writes. */
  readonly names: CachedBytes;
  readonly #random: Random;
  /** How to undo changes of names since the last sync; newest last. */
  readonly #undo: (() => void)[] = [];

  constructor(device: number, medium: Medium, isVolatile: boolean, random: Random) {
    this.device = device;
    this.medium = medium;
    this.isVolatile = isVolatile;
    this.#random = random;
    this.names = new CachedBytes(0, true, random);
  }

  /** A name was changed. */
  changed(undo: () => void): void {
    if (!this.isVolatile) this.#undo.push(undo);
  }

  syncNames(): void {
    this.#undo.length = 0;
  }

  /** A power cut: names are as they were at some moment since the last sync. */
  cutNames(): void {
    const left = this.#random.below(this.#undo.length + 1);
    while (this.#undo.length > left) this.#undo.pop()?.();
    this.#undo.length = 0;
  }
}

let lastInode = 1;
/** Restarts the inode numbers, for a run that repeats another one. */
export function resetInodes(): void {
  lastInode = 1;
}

export abstract class Node {
  readonly fs: FileSystem;
  readonly inode: number = ++lastInode;
  mode: number;
  readonly rdev: number;
  links = 1;
  modifiedMs = 0;
  changedMs = 0;
  /** For flock(2)-like locks: the holders, for reading or writing. */
  readonly locks: Map<OpenFile, "read" | "write"> = new Map();

  constructor(fs: FileSystem, mode: number, rdev = 0) {
    this.fs = fs;
    this.mode = mode;
    this.rdev = rdev;
  }

  get sizeBytes(): number {
    return 0;
  }

  /** @throws SystemError */
  open(_open: OpenFile): void {}

  /** Its last descriptor, mapping and registration in a ring is gone. */
  close(_open: OpenFile): void {}

  /** Starts I/O. @returns 0, or a negative errno if it has not begun */
  start(_io: Io, _open: OpenFile, _owner: IoOwner | undefined): number {
    return -Errno.EINVAL;
  }

  /** @returns the mapping of mmap(2), or a negative errno */
  map(_open: OpenFile, _offsetBytes: number, _lengthBytes: number): ArrayBuffer | number {
    return -Errno.ENODEV;
  }

  ioctl(_request: number, _argument: ArrayBufferView | number): number {
    return -Errno.ENOTTY;
  }
}

export class Directory extends Node {
  protected readonly entries: Map<string, Node> = new Map();

  constructor(fs: FileSystem, permissions = 0o755) {
    super(fs, Mode.DIRECTORY | permissions);
  }

  lookup(name: string): Node | undefined {
    return this.entries.get(name);
  }

  names(): string[] {
    return [...this.entries.keys()];
  }

  set(name: string, node: Node): void {
    const before = this.entries.get(name);
    this.entries.set(name, node);
    this.fs.changed(() => {
      if (before === undefined) this.entries.delete(name);
      else this.entries.set(name, before);
    });
  }

  remove(name: string): void {
    const before = this.entries.get(name);
    if (before === undefined) return;
    this.entries.delete(name);
    this.fs.changed(() => this.entries.set(name, before));
  }

  /** rename(2) to this directory: a power cut leaves both names as before, or both as after. */
  rename(from: Directory, oldName: string, newName: string, node: Node, before?: Node): void {
    from.entries.delete(oldName);
    this.entries.set(newName, node);
    this.fs.changed(() => {
      if (before === undefined) this.entries.delete(newName);
      else this.entries.set(newName, before);
      from.entries.set(oldName, node);
    });
  }

  override start(io: Io, _open: OpenFile, owner: IoOwner | undefined): number {
    if (io.kind !== "sync") return -Errno.EISDIR;
    const { fs } = this;
    const synced = new Io("sync", 0, 0, undefined, false, (result) => {
      if (result === 0) fs.syncNames();
      io.done(result);
    });
    fs.medium.submit(synced, fs.names, owner);
    return 0;
  }
}

/** A directory whose names are made when they are looked up. */
export class LiveDirectory extends Directory {
  readonly #lookup: (name: string) => Node | undefined;
  readonly #names: () => string[];

  constructor(
    fs: FileSystem,
    lookup: (name: string) => Node | undefined,
    names: () => string[] = () => [],
  ) {
    super(fs, 0o555);
    this.#lookup = lookup;
    this.#names = names;
  }

  override lookup(name: string): Node | undefined {
    return super.lookup(name) ?? this.#lookup(name);
  }

  override names(): string[] {
    return [...super.names(), ...this.#names()];
  }
}

/** A symbolic link, or one that leads to a node whatever its name (as in /proc/self/fd). */
export class Link extends Node {
  readonly target: string;
  readonly leadsTo: Node | undefined;

  constructor(fs: FileSystem, target: string, leadsTo?: Node) {
    super(fs, Mode.LINK | 0o777);
    this.target = target;
    this.leadsTo = leadsTo;
  }
}

export class RegularFile extends Node {
  readonly content: CachedBytes;
  /** How often its pages could not be written back. */
  #failures = 0;
  #isTold = true;
  /** How many of these were reported to each open file. */
  readonly #told = new Map<OpenFile, number>();

  constructor(fs: FileSystem, permissions: number, random: Random) {
    super(fs, Mode.FILE | permissions);
    this.content = new CachedBytes(0, fs.isVolatile, random);
  }

  override get sizeBytes(): number {
    return this.content.sizeBytes;
  }

  override open(open: OpenFile): void {
    this.#told.set(open, this.#isTold ? this.#failures : this.#failures - 1);
  }

  override close(open: OpenFile): void {
    this.#told.delete(open);
  }

  /** As in Linux since 4.13: each open file learns of it once, at its next sync or when it asks. */
  failWriteback(): void {
    this.content.failWriteback();
    this.#failures++;
    this.#isTold = false;
  }

  /** @returns the error that this open file has not seen yet: 0, or a negative errno */
  takeError(open: OpenFile): number {
    if (this.#told.get(open) === this.#failures) return 0;
    this.#told.set(open, this.#failures);
    this.#isTold = true;
    return -Errno.EIO;
  }

  override start(io: Io, open: OpenFile, owner: IoOwner | undefined): number {
    const alignment = open.isDirect ? 512 : 1;
    const isTransfer = io.kind === "read" || io.kind === "write";
    if (isTransfer && (io.offsetBytes % alignment !== 0 || io.lengthBytes % alignment !== 0)) {
      return -Errno.EINVAL;
    }
    const grows = io.kind === "write" || io.kind === "allocate";
    if (grows && io.offsetBytes + io.lengthBytes > this.fs.capacityBytes) return -Errno.ENOSPC;
    if (io.kind === "sync") {
      const done = (result: number): void => io.done(result < 0 ? result : this.takeError(open));
      this.fs.medium.submit(new Io("sync", 0, 0, undefined, false, done), this.content, owner);
    } else this.fs.medium.submit(io, this.content, owner);
    return 0;
  }

  override map(_: OpenFile, offsetBytes: number, lengthBytes: number): ArrayBuffer | number {
    if (offsetBytes !== 0) return -Errno.EINVAL;
    return this.content.share(lengthBytes) ?? -Errno.EINVAL;
  }
}

/** A file of sysfs or procfs. */
export class TextFile extends Node {
  readonly #read: () => string;
  readonly #write: ((text: string) => number) | undefined;

  constructor(fs: FileSystem, read: () => string, write?: (text: string) => number) {
    super(fs, Mode.FILE | (write === undefined ? 0o444 : 0o644));
    this.#read = read;
    this.#write = write;
  }

  text(): string {
    return this.#read();
  }

  /** @returns bytes, or a negative errno */
  write(text: string): number {
    return this.#write?.(text) ?? -Errno.EACCES;
  }
}

/** An eventfd. */
export class EventCounter extends Node {
  value = 0n;
  readonly #waiting: ((value: bigint) => void)[] = [];

  constructor(fs: FileSystem) {
    super(fs, 0o600);
  }

  add(value: bigint): void {
    this.value += value;
    const waiter = this.#waiting.shift();
    if (waiter === undefined) return;
    const count = this.value;
    this.value = 0n;
    waiter(count);
  }

  /** @returns function that undoes the wait; undefined if there was a value already */
  read(done: (value: bigint) => void): (() => boolean) | undefined {
    if (this.value > 0n) {
      const count = this.value;
      this.value = 0n;
      done(count);
      return undefined;
    }
    this.#waiting.push(done);
    return () => {
      const at = this.#waiting.indexOf(done);
      if (at < 0) return false;
      this.#waiting.splice(at, 1);
      return true;
    };
  }
}

/** A command of io_uring on a character device. */
export interface UringCommand {
  readonly op: number;
  /** The command's own bytes, as words, from this index on. */
  readonly words: Int32Array;
  /** If it came through a ring: the ring, and the low half of its entry's address. */
  readonly ring?: SimRing;
  readonly address?: number;
  readonly process: SimProcess;
  readonly done: (result: number) => void;
  /** Set by the holder of the command: undoes it. @returns the command's result, if it can be undone */
  cancel?: (() => number | undefined) | undefined;
}

export abstract class CharacterDevice extends Node {
  constructor(fs: FileSystem, major: number, minor: number) {
    super(fs, Mode.CHARACTER | 0o600, deviceOf(major, minor));
  }

  abstract command(command: UringCommand, open: OpenFile): void;
}

export function assertDirectory(node: Node, call: string, path: string): Directory {
  if (node instanceof Directory) return node;
  throw new SystemError(Errno.ENOTDIR, call, path);
}
