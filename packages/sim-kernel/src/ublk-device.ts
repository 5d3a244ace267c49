/**
 * One simulated ublk device: its character device, which a server has open, its block device, which users have open,
 * and the requests between them.
 *
 * ```
 *   user ─▶ pending ─▶ a tag whose command is parked ─▶ server ─▶ COMMIT ─▶ user
 *              ▲                                          │
 *              └── the server died: sent again ◀──────────┘
 * ```
 */
import { Errno, SystemError } from "./errno.js";
import type { SimMachine } from "./machine.js";
import type { Io, IoOwner } from "./medium.js";
import { CharacterDevice, type FileSystem, type UringCommand } from "./nodes.js";
import type { OpenFile } from "./process.js";
import { RequestPages, registerPages } from "./request-pages.js";
import { UblkBlock } from "./ublk-block.js";
import { type Part, partsOf, UBLK_IO_OP } from "./ublk-parts.js";
import { copyRequest } from "./user-copy.js";

export const UblkState = { DEAD: 0, LIVE: 1, QUIESCED: 2 } as const;
export const UblkFlag = {
  USER_RECOVERY: 8,
  REISSUE: 16,
  USER_COPY: 0x80,
  UPDATE_SIZE: 0x400,
  AUTO_BUF_REG: 0x800,
} as const;

const FETCH_REQ = 0xc0107520;
const COMMIT_AND_FETCH_REQ = 0xc0107521;
const IO_NEED_REG_BUF = 0x20000;
const FALLBACK = 0x10000;
const DESC_WORDS = 6;
const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;
const ABORT = -Errno.ENODEV;
const CHAR_MAJOR = 240;
/** The kernel notices a death after this time. */
const POLL_US = 4000;
const NOTICE_US: readonly [least: number, most: number] = [100, 300_000];

interface Tag {
  /** Waits for a request. */
  command: UringCommand | undefined;
  /** The server's request. */
  part: Part | undefined;
  bufferAddress: number;
  /** Pages of a request of a device with AUTO_BUF_REG, and the function that unregisters them. */
  pages: RequestPages | undefined;
  unregister: (() => void) | undefined;
}

/** The information of ADD_DEV. */
export interface UblkDeviceInfo {
  readonly id: number;
  readonly depth: number;
  readonly maxIoBytes: number;
  readonly flags: number;
  readonly serverFlags: number;
  readonly serverFlagsHigh: number;
}

export class UblkDevice extends CharacterDevice {
  readonly info: UblkDeviceInfo;
  state: number = UblkState.DEAD;
  serverPid = -1;
  params: DataView | undefined;
  block: UblkBlock | undefined;
  /** Most requests that the server may have at a time. */
  requestsMax: number;
  isDeleted = false;
  /** START_USER_RECOVERY was given, and nothing was fetched since. */
  isRecovering = false;
  readonly #machine: SimMachine;
  readonly #tags: Tag[];
  readonly #pending: Part[] = [];
  readonly #descriptors: ArrayBuffer;
  readonly #desc32: Int32Array;
  #opener: OpenFile | undefined;
  /** The kernel is about to notice that its server has died. */
  #isNoticing = false;
  #isStopping = false;
  /** Pages of requests that I/O of a dead server still uses. */
  #outliving: RequestPages[] = [];
  #onStopped: (() => void)[] = [];
  #onFetched: (() => void) | undefined;

  constructor(fs: FileSystem, info: UblkDeviceInfo, machine: SimMachine) {
    super(fs, CHAR_MAJOR, info.id);
    this.info = info;
    this.#machine = machine;
    this.requestsMax = info.depth;
    this.#tags = Array.from({ length: info.depth }, () => ({
      command: undefined,
      part: undefined,
      bufferAddress: 0,
      pages: undefined,
      unregister: undefined,
    }));
    const pages = Math.ceil((info.depth * DESC_WORDS * 4) / PAGE_BYTES);
    this.#descriptors = new ArrayBuffer(pages * PAGE_BYTES);
    this.#desc32 = new Int32Array(this.#descriptors);
  }

  get isOpen(): boolean {
    return this.#opener !== undefined;
  }

  /** Requests that users wait for. */
  get inFlight(): number {
    return this.#pending.length + this.#inServer;
  }

  get #inServer(): number {
    let count = 0;
    for (const { part } of this.#tags) if (part !== undefined) count++;
    return count;
  }

  get isFetched(): boolean {
    return this.#tags.every(({ command, part }) => command !== undefined || part !== undefined);
  }

  /** Neither a server nor a user has it open. */
  get isUnused(): boolean {
    return !this.isOpen && (this.block === undefined || this.block.openers.size === 0);
  }

  override open(open: OpenFile): void {
    if (this.isDeleted) throw new SystemError(Errno.ENODEV, "open", open.path);
    if (this.#opener !== undefined) throw new SystemError(Errno.EBUSY, "open", open.path);
    this.#opener = open;
  }

  override close(open: OpenFile): void {
    if (this.#opener !== open) return;
    this.#opener = undefined;
    this.#serverGone();
    this.#machine.ublk.releaseIfUnused(this);
  }

  override map(open: OpenFile, offsetBytes: number, lengthBytes: number): ArrayBuffer | number {
    if (offsetBytes !== 0 || lengthBytes !== this.#descriptors.byteLength) return -Errno.EINVAL;
    open.hold();
    return this.#descriptors;
  }

  /** Calls back once every tag has been fetched. @returns function that cancels the wait */
  whenFetched(done: () => void): () => void {
    if (this.isFetched) done();
    else this.#onFetched = done;
    return () => {
      this.#onFetched = undefined;
    };
  }

  override command(command: UringCommand): void {
    const tagIndex = command.words[0] >>> 16;
    const tag = this.#tags[tagIndex];
    if (tag === undefined || (command.words[0] & 0xffff) !== 0) {
      command.done(-Errno.EINVAL);
      return;
    }
    const address = (command.words[3] >>> 0) * 2 ** 32 + (command.words[2] >>> 0);
    if ((address === 0) !== this.#isCopyOfServer) command.done(-Errno.EINVAL);
    else if (command.op === FETCH_REQ) this.#fetch(tag, command, address);
    else if (command.op === COMMIT_AND_FETCH_REQ) this.#commit(tag, command, address);
    else command.done(-Errno.EOPNOTSUPP);
  }

  #fetch(tag: Tag, command: UringCommand, address: number): void {
    if (tag.command !== undefined || tag.part !== undefined) {
      command.done(-Errno.EBUSY);
      return;
    }
    this.#park(tag, command, address);
    if (!this.isFetched) return;
    this.isRecovering = false;
    const told = this.#onFetched;
    this.#onFetched = undefined;
    told?.();
  }

  #commit(tag: Tag, command: UringCommand, address: number): void {
    const { part } = tag;
    if (part === undefined) {
      command.done(-Errno.EINVAL);
      return;
    }
    tag.part = undefined;
    if (tag.pages?.isUsed === true) this.#violation("a request was answered under its I/O");
    this.#unregister(tag);
    const result = command.words[1];
    const isTransfer = part.data !== undefined;
    if (result >= 0 && isTransfer && result !== part.lengthBytes) {
      this.#violation(`${result} bytes of ${part.lengthBytes} were answered`);
    }
    if (result >= 0 && part.op === UBLK_IO_OP.read && !this.#isCopyOfServer) {
      const bytes = this.#machine.memory.view(tag.bufferAddress, part.lengthBytes);
      if (typeof bytes === "number") part.done(bytes);
      else part.data?.set(bytes);
    }
    this.#park(tag, command, address);
    this.#machine.scheduler.after(1, () => part.done(result));
    this.#dispatch();
    this.#tryStopped();
  }

  /** The server copies bytes itself, and names no buffers. */
  get #isCopyOfServer(): boolean {
    return (this.info.flags & (UblkFlag.USER_COPY | UblkFlag.AUTO_BUF_REG)) !== 0;
  }

  #violation(what: string): void {
    this.#machine.violation(`ublk device ${this.info.id}: ${what}`);
  }

  #unregister(tag: Tag): void {
    tag.unregister?.();
    tag.unregister = undefined;
    tag.pages = undefined;
  }

  /** A server reads the bytes of a write, or writes those of a read. */
  override start(io: Io, _open: OpenFile, _owner: IoOwner | undefined): number {
    if ((this.info.flags & UblkFlag.USER_COPY) === 0) return -Errno.EACCES;
    const partOf = (tag: number): Part | undefined => this.#tags[tag]?.part;
    return copyRequest(io, partOf, this.#machine);
  }

  #park(tag: Tag, command: UringCommand, address: number): void {
    tag.command = command;
    tag.bufferAddress = address;
    command.cancel = () => undefined;
  }

  /** A request of a user. @returns 0 or a negative errno */
  submit(io: Io): number {
    if (this.#isStopping || this.state === UblkState.DEAD) return -Errno.EIO;
    const { limits } = this.block as UblkBlock;
    if (io.kind === "sync" && !limits.hasVolatileCache) {
      this.#machine.scheduler.after(1, () => io.done(0));
      return 0;
    }
    const { maxIoBytes } = this.info;
    this.#pending.push(...partsOf(io, limits, maxIoBytes, () => this.#flushAfter(io)));
    this.#machine.scheduler.after(1 + this.#machine.random.below(20), () => this.#dispatch());
    return 0;
  }

  #flushAfter(io: Io): void {
    this.#pending.push({
      io,
      op: UBLK_IO_OP.sync,
      flags: 0,
      offsetBytes: 0,
      lengthBytes: 0,
      data: undefined,
      done: (result) => io.done(result < 0 ? result : io.lengthBytes),
    });
    this.#dispatch();
  }

  #dispatch(): void {
    const { random } = this.#machine;
    while (this.#pending.length > 0 && this.state === UblkState.LIVE && !this.#isNoticing) {
      if (this.#inServer >= this.requestsMax) return;
      const free = this.#tags.flatMap(({ command }, tag) => (command === undefined ? [] : [tag]));
      if (free.length === 0) return;
      const tag = free[random.below(free.length)];
      const [part] = this.#pending.splice(random.below(this.#pending.length), 1);
      this.#send(tag, part);
    }
  }

  #send(index: number, part: Part): void {
    const tag = this.#tags[index];
    const command = tag.command as UringCommand;
    tag.command = undefined;
    tag.part = part;
    let flags = part.flags;
    if ((this.info.flags & UblkFlag.AUTO_BUF_REG) !== 0 && part.data !== undefined) {
      if (!this.#register(tag, command, part.data)) flags |= IO_NEED_REG_BUF;
    } else if (part.op === UBLK_IO_OP.write && !this.#isCopyOfServer) {
      const bytes = this.#machine.memory.view(tag.bufferAddress, part.lengthBytes);
      if (typeof bytes === "number") this.#machine.violation("a tag's buffer is not mapped");
      else bytes.set(part.data as Uint8Array);
    }
    const at = index * DESC_WORDS;
    const sector = part.offsetBytes / SECTOR_BYTES;
    this.#desc32[at] = part.op | flags;
    this.#desc32[at + 1] = part.lengthBytes / SECTOR_BYTES;
    this.#desc32[at + 2] = sector | 0;
    this.#desc32[at + 3] = (sector / 2 ** 32) | 0;
    command.done(0);
  }

  #register(tag: Tag, command: UringCommand, data: Uint8Array): boolean {
    const isRead = (tag.part as Part).op === UBLK_IO_OP.read;
    const pages = new RequestPages(data, isRead);
    const { ring, address = 0 } = command;
    if ((address & FALLBACK) === 0) this.#violation("a request can fail for its pages");
    if (ring === undefined || this.#machine.ublkKernel.refusesPages()) return false;
    tag.unregister = registerPages(ring, address & 0xffff, pages);
    tag.pages = pages;
    return tag.unregister !== undefined;
  }

  /** Its server's process has died, but may keep it open for I/O in flight. */
  serverDied(): void {
    this.#serverGone();
  }

  #serverGone(): void {
    const lost: Part[] = [];
    for (const tag of this.#tags) {
      tag.command = undefined;
      if (tag.pages?.isUsed === true) this.#outliving.push(tag.pages);
      this.#unregister(tag);
      if (tag.part !== undefined) lost.push(tag.part);
      tag.part = undefined;
    }
    this.#onFetched = undefined;
    if (this.state === UblkState.QUIESCED) {
      this.#pending.unshift(...lost);
      return;
    }
    if (this.state !== UblkState.LIVE) {
      for (const part of lost) part.done(-Errno.EIO);
      return;
    }
    const { flags } = this.info;
    if ((flags & UblkFlag.REISSUE) !== 0) this.#pending.unshift(...lost);
    else for (const part of lost) part.done(-Errno.EIO);
    if (this.#isNoticing) return;
    this.#isNoticing = true;
    const [least, most] = NOTICE_US;
    const notice = (): void => {
      // The kernel waits for I/O that uses pages of requests.
      this.#outliving = this.#outliving.filter(({ isUsed }) => isUsed);
      if (this.#outliving.length > 0) {
        this.#machine.scheduler.after(POLL_US, notice);
        return;
      }
      this.#isNoticing = false;
      if (this.state !== UblkState.LIVE) return;
      if ((flags & UblkFlag.USER_RECOVERY) !== 0) this.state = UblkState.QUIESCED;
      else this.#die();
      this.#tryStopped();
    };
    this.#machine.scheduler.after(least + this.#machine.random.below(most - least), notice);
  }

  onUserClosed(): void {
    this.#machine.ublk.releaseIfUnused(this);
  }

  /** Every tag is fetched: users may see the device. */
  goLive(): void {
    this.state = UblkState.LIVE;
    this.#isStopping = false;
    this.isRecovering = false;
    this.#dispatch();
  }

  /** STOP_DEV: waits for users' requests in flight. */
  stop(done: () => void): void {
    this.#isStopping = this.state !== UblkState.DEAD;
    this.#onStopped.push(done);
    this.#tryStopped();
  }

  get isStopping(): boolean {
    return this.#isStopping;
  }

  #tryStopped(): void {
    if (this.#onStopped.length === 0 || this.#isNoticing) return;
    if (this.state === UblkState.LIVE && this.inFlight > 0) return;
    this.#die();
    for (const told of this.#onStopped.splice(0)) told();
  }

  #die(): void {
    this.state = UblkState.DEAD;
    this.isRecovering = false;
    for (const part of this.#pending.splice(0)) part.done(-Errno.EIO);
    for (const tag of this.#tags) {
      const { command } = tag;
      tag.command = undefined;
      if (command !== undefined) this.#machine.scheduler.after(1, () => command.done(ABORT));
    }
    const { block } = this;
    if (block !== undefined) this.#machine.removeBlockDevice(block);
  }

  makeBlock(fs: FileSystem): UblkBlock {
    this.block = new UblkBlock(fs, this);
    return this.block;
  }
}
