/**
 * One simulated ublk device: its character device, which a server has open, its block device, which users
 * have, and the requests between them.
 *
 * ```
 *   user ─▶ pending ─▶ a tag whose command is parked ─▶ server ─▶ COMMIT ─▶ user
 *              ▲                                          │
 *              └── the server died: sent again ◀──────────┘
 * ```
 */
import type { BlockLimits } from "./block-device.js";
import { Errno, SystemError } from "./errno.js";
import type { SimMachine } from "./machine.js";
import type { Io } from "./medium.js";
import { CharacterDevice, type FileSystem, type UringCommand } from "./nodes.js";
import type { OpenFile } from "./process.js";
import { UblkBlock } from "./ublk-block.js";

export const UblkState = { DEAD: 0, LIVE: 1, QUIESCED: 2 } as const;
export const UblkFlag = { USER_RECOVERY: 8, REISSUE: 16 } as const;

const FETCH_REQ = 0xc0107520;
const COMMIT_AND_FETCH_REQ = 0xc0107521;
const UBLK_IO_OP = { read: 0, write: 1, sync: 2, discard: 3, punch: 5, zero: 5, allocate: -1 };
const IO_FUA = 0x2000;
const IO_NOUNMAP = 0x8000;
const DESC_WORDS = 6;
const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;
const ABORT = -Errno.ENODEV;
const CHAR_MAJOR = 240;
/** The kernel notices a death a while after it. */
const NOTICE_US: readonly [least: number, most: number] = [100, 300_000];

/** What is asked of the server at once. */
interface Part {
  readonly io: Io;
  readonly op: number;
  readonly flags: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly data: Uint8Array | undefined;
  readonly done: (result: number) => void;
}

interface Tag {
  /** Waits for a request. */
  command: UringCommand | undefined;
  /** The server has it. */
  part: Part | undefined;
  bufferAddress: number;
}

/** As ADD_DEV has it. */
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
  /** Most requests that the server has at a time. */
  requestsMax: number;
  isDeleted = false;
  /** START_USER_RECOVERY was given and nothing fetched since. */
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

  /** Calls once every tag has been fetched. @returns how to wait no more */
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
    if (command.op === FETCH_REQ) this.#fetch(tag, command, address);
    else if (command.op === COMMIT_AND_FETCH_REQ) this.#commit(tag, command, address);
    else command.done(-Errno.EOPNOTSUPP);
  }

  #fetch(tag: Tag, command: UringCommand, address: number): void {
    if (tag.command !== undefined || tag.part !== undefined) {
      command.done(-Errno.EBUSY);
      return;
    }
    if (address === 0) {
      command.done(-Errno.EINVAL);
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
    const result = command.words[1];
    const isTransfer = part.data !== undefined;
    if (result >= 0 && isTransfer && result !== part.lengthBytes) {
      this.#machine.violation(
        `ublk device ${this.info.id}: ${result} bytes of ${part.lengthBytes} were answered`,
      );
    }
    if (result >= 0 && part.op === UBLK_IO_OP.read) {
      const bytes = this.#machine.memory.view(tag.bufferAddress, part.lengthBytes);
      if (typeof bytes === "number") part.done(bytes);
      else part.data?.set(bytes);
    }
    this.#park(tag, command, address);
    this.#machine.scheduler.after(1, () => part.done(result));
    this.#dispatch();
    this.#tryStopped();
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
    const parts = this.#partsOf(io, limits);
    this.#pending.push(...parts);
    this.#machine.scheduler.after(1 + this.#machine.random.below(20), () => this.#dispatch());
    return 0;
  }

  #partsOf(io: Io, limits: BlockLimits): Part[] {
    const isTransfer = io.data !== undefined;
    const most = isTransfer
      ? this.info.maxIoBytes
      : Math.max(io.kind === "discard" ? limits.discardMaxBytes : limits.writeZeroesMaxBytes, 1);
    const count = io.kind === "sync" ? 1 : Math.max(1, Math.ceil(io.lengthBytes / most));
    let left = count;
    let worst = 0;
    const needsFlush = io.isDurable && limits.hasVolatileCache && !limits.hasFua;
    const done = (result: number): void => {
      if (result < 0) worst = result;
      left--;
      if (left > 0) return;
      if (worst < 0 || !needsFlush) io.done(worst < 0 ? worst : isTransfer ? io.lengthBytes : 0);
      else this.#flushAfter(io);
    };
    return Array.from({ length: count }, (_, i) => {
      const start = i * most;
      const lengthBytes = Math.min(most, io.lengthBytes - start);
      const isFua = io.isDurable && limits.hasVolatileCache && limits.hasFua;
      return {
        io,
        op: UBLK_IO_OP[io.kind],
        flags: (isFua ? IO_FUA : 0) | (io.kind === "zero" ? IO_NOUNMAP : 0),
        offsetBytes: io.offsetBytes + start,
        lengthBytes,
        data: io.data?.subarray(start, start + lengthBytes),
        done,
      };
    });
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
    if (part.op === UBLK_IO_OP.write) {
      const bytes = this.#machine.memory.view(tag.bufferAddress, part.lengthBytes);
      if (typeof bytes === "number") this.#machine.violation("a tag's buffer is not mapped");
      else bytes.set(part.data as Uint8Array);
    }
    const at = index * DESC_WORDS;
    const sector = part.offsetBytes / SECTOR_BYTES;
    this.#desc32[at] = part.op | part.flags;
    this.#desc32[at + 1] = part.lengthBytes / SECTOR_BYTES;
    this.#desc32[at + 2] = sector | 0;
    this.#desc32[at + 3] = (sector / 2 ** 32) | 0;
    command.done(0);
  }

  /** Its server's process has died; it may still have it open, for I/O that has not ended. */
  serverDied(): void {
    this.#serverGone();
  }

  #serverGone(): void {
    const lost: Part[] = [];
    for (const tag of this.#tags) {
      tag.command = undefined;
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
    this.#machine.scheduler.after(least + this.#machine.random.below(most - least), () => {
      this.#isNoticing = false;
      if (this.state !== UblkState.LIVE) return;
      if ((flags & UblkFlag.USER_RECOVERY) !== 0) this.state = UblkState.QUIESCED;
      else this.#die();
      this.#tryStopped();
    });
  }

  onUserClosed(): void {
    this.#machine.ublk.releaseIfUnused(this);
  }

  /** Every tag is fetched: users may see it. */
  goLive(): void {
    this.state = UblkState.LIVE;
    this.#isStopping = false;
    this.isRecovering = false;
    this.#dispatch();
  }

  /** STOP_DEV: waits for what users have in flight. */
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
