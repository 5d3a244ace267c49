/** Processes: lives of the simulated program, and their open files. */
import { Errno, SystemError } from "./errno.js";
import type { Io, IoOwner } from "./medium.js";
import type { Mapping } from "./memory.js";
import type { Node } from "./nodes.js";

/** First descriptor number: lower ones belong to the real process. */
export const FD_FIRST = 1_000_000;

const O_ACCMODE = 3;
const O_EXCL = 0o200;
const O_DIRECT = 0o40000;

/** An open file description. */
export class OpenFile {
  readonly node: Node;
  readonly path: string;
  isDirect: boolean;
  readonly isWritable: boolean;
  readonly isExclusive: boolean;
  positionBytes = 0;
  #references = 1;

  /** @throws SystemError */
  constructor(node: Node, path: string, flags: number) {
    this.node = node;
    this.path = path;
    this.isDirect = (flags & O_DIRECT) !== 0;
    this.isWritable = (flags & O_ACCMODE) !== 0;
    this.isExclusive = (flags & O_EXCL) !== 0;
    node.open(this);
  }

  /** Starts I/O. @returns 0, or a negative errno if it has not begun */
  start(io: Io, owner: IoOwner | undefined): number {
    const isRead = io.kind === "read" || io.kind === "sync";
    if (!isRead && !this.isWritable) return -Errno.EBADF;
    return this.node.start(io, this, owner);
  }

  hold(): void {
    this.#references++;
  }

  release(): void {
    this.#references--;
    if (this.#references > 0) return;
    this.node.locks.delete(this);
    this.node.close(this);
  }
}

/** Something that ends with its process, in this order. */
export interface Ending {
  end(): void;
}

export class SimProcess implements IoOwner {
  readonly id: number;
  isAlive = true;
  /** Called when I/O that has outlived the process ends. */
  onIoEnd: (() => void) | undefined;
  readonly inFlight: Set<Io> = new Set();
  readonly files: Map<number, OpenFile> = new Map();
  /** Rings. */
  readonly endings: Set<Ending> = new Set();
  readonly mappings: Set<Mapping> = new Set();
  /** Files used by unfinished calls: they stay open even if their descriptor is closed. */
  readonly #uses = new Set<() => void>();
  #lowestFree = FD_FIRST;

  constructor(id: number) {
    this.id = id;
  }

  begin(io: Io): void {
    this.inFlight.add(io);
  }

  end(io: Io): void {
    this.inFlight.delete(io);
    this.onIoEnd?.();
  }

  /** A call begins to use the file. @returns function that ends that */
  use(open: OpenFile): () => void {
    open.hold();
    const release = (): void => {
      if (this.#uses.delete(release)) open.release();
    };
    this.#uses.add(release);
    return release;
  }

  /** The process is gone, with all of its I/O. */
  leave(): void {
    for (const fd of [...this.files.keys()]) this.closeFile(fd);
    for (const release of [...this.#uses]) release();
  }

  /** @returns its descriptor, the lowest free one */
  addFile(open: OpenFile): number {
    let fd = this.#lowestFree;
    while (this.files.has(fd)) fd++;
    this.files.set(fd, open);
    this.#lowestFree = fd + 1;
    return fd;
  }

  /** @throws SystemError EBADF */
  file(fd: number, call: string): OpenFile {
    const open = this.files.get(fd);
    if (open === undefined) throw new SystemError(Errno.EBADF, call);
    return open;
  }

  closeFile(fd: number): void {
    const open = this.file(fd, "close");
    this.files.delete(fd);
    this.#lowestFree = Math.min(this.#lowestFree, fd);
    open.release();
  }
}
