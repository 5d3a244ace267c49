/** Starts the entries of a ring, in chains if they are linked, and completes them. */
import { FallocateMode, Opcode, RwFlag, SqeFlag } from "@blksnap/uring";
import { Errno } from "./errno.js";
import { Io, type IoKind } from "./medium.js";
import type { Memory } from "./memory.js";
import { CharacterDevice, EventCounter, RegularFile, type UringCommand } from "./nodes.js";
import type { OpenFile, SimProcess } from "./process.js";
import type { RequestPages } from "./request-pages.js";
import type { Scheduler } from "./scheduler.js";
import { type Operation, release, type SimRing } from "./sim-ring.js";

const BLOCK_DISCARD = 0x1200;

/** What operations need from the machine. */
export interface OperationParts {
  readonly scheduler: Scheduler;
  readonly memory: Memory;
  ringOf(fd: number): SimRing | undefined;
  /** True if the target does not accept the pages of this request. */
  refusesPages(): boolean;
}

function unsigned(low: number, high: number): number {
  return high * 2 ** 32 + (low >>> 0);
}

export class Operations {
  readonly #parts: OperationParts;

  constructor(parts: OperationParts) {
    this.#parts = parts;
  }

  /** Takes entries of a ring and starts them. */
  submit(ring: SimRing, count: number, process: SimProcess): void {
    let first: Operation | undefined;
    let last: Operation | undefined;
    for (let i = 0; i < count; i++) {
      const operation = this.#read(ring, ring.takeEntry());
      if (last === undefined) first = operation;
      else last.next = operation;
      last = (operation.flags & SqeFlag.IO_LINK) === 0 ? undefined : operation;
      if (last === undefined) this.#start(first as Operation, process);
    }
    if (last !== undefined) this.#start(first as Operation, process);
  }

  #read(ring: SimRing, at: number): Operation {
    const words = ring.words.slice(at, at + ring.sqeWords);
    return {
      ring,
      opcode: words[0] & 0xff,
      flags: (words[0] >>> 8) & 0xff,
      userLow: words[8],
      userHigh: words[9],
      words,
      next: undefined,
      cancel: undefined,
      file: undefined,
      memory: undefined,
      isFixed: ((words[0] >>> 8) & SqeFlag.FIXED_FILE) !== 0,
    };
  }

  #start(operation: Operation, process: SimProcess): void {
    const { ring } = operation;
    ring.inFlight.add(operation);
    let ended = false;
    const done = (result: number): void => {
      if (ended || !process.isAlive || ring.isClosed) return;
      ended = true;
      this.#end(operation, result, process);
    };
    const status = this.#begin(operation, process, done);
    if (status < 0) done(status);
  }

  #end(operation: Operation, result: number, process: SimProcess): void {
    const { ring, next, flags, userLow, userHigh } = operation;
    ring.inFlight.delete(operation);
    release(operation);
    const isWhole = result >= 0 && !this.#isShort(operation, result);
    const isSilent = result >= 0 && (flags & SqeFlag.CQE_SKIP_SUCCESS) !== 0;
    if (!isSilent) ring.complete(userLow, userHigh, result);
    if (next === undefined) return;
    if (isWhole) {
      this.#start(next, process);
      return;
    }
    for (let left: Operation | undefined = next; left !== undefined; left = left.next) {
      ring.complete(left.userLow, left.userHigh, -Errno.ECANCELED);
    }
  }

  #isShort({ opcode, words }: Operation, result: number): boolean {
    const isTransfer =
      opcode === Opcode.READ ||
      opcode === Opcode.WRITE ||
      opcode === Opcode.READ_FIXED ||
      opcode === Opcode.WRITE_FIXED;
    return isTransfer && result !== words[6];
  }

  /** @returns a negative errno if it has not begun */
  #begin(operation: Operation, process: SimProcess, done: (result: number) => void): number {
    const { opcode, words, ring } = operation;
    switch (opcode) {
      case Opcode.NOP:
        done(0);
        return 0;
      case Opcode.TIMEOUT:
        return this.#timeout(operation, done);
      case Opcode.ASYNC_CANCEL:
        done(cancel(ring, words[4], words[5], operation));
        return 0;
      case Opcode.MSG_RING:
        return this.#message(operation, done);
      case Opcode.READ:
      case Opcode.READ_FIXED:
        return this.#transfer(operation, "read", process, done);
      case Opcode.WRITE:
      case Opcode.WRITE_FIXED:
        return this.#transfer(operation, "write", process, done);
      case Opcode.FSYNC:
        return this.#io(operation, "sync", 0, 0, process, done);
      case Opcode.SYNC_FILE_RANGE: {
        const open = this.#fileOf(operation, process);
        if (open === undefined) return -Errno.EBADF;
        done(open.node instanceof RegularFile ? open.node.takeError(open) : 0);
        return 0;
      }
      case Opcode.FALLOCATE:
        return this.#allocate(operation, process, done);
      case Opcode.URING_CMD:
        return this.#command(operation, process, done);
      default:
        return -Errno.EINVAL;
    }
  }

  #fileOf(operation: Operation, process: SimProcess): OpenFile | undefined {
    const fd = operation.words[1];
    if (operation.isFixed) operation.file = operation.ring.files[fd];
    else operation.file = process.files.get(fd);
    if (!operation.isFixed) operation.file?.hold();
    return operation.file;
  }

  #timeout(operation: Operation, done: (result: number) => void): number {
    const bytes = this.#parts.memory.view(unsigned(operation.words[4], operation.words[5]), 16);
    if (typeof bytes === "number") return bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
    const us = Number(view.getBigInt64(0, true)) * 1e6 + Number(view.getBigInt64(8, true)) / 1e3;
    const event = this.#parts.scheduler.after(us, () => done(-Errno.ETIME));
    operation.cancel = () => {
      event.cancel();
      return -Errno.ECANCELED;
    };
    return 0;
  }

  #message({ words }: Operation, done: (result: number) => void): number {
    const target = this.#parts.ringOf(words[1]);
    if (target === undefined) return -Errno.EBADF;
    target.complete(words[2], words[3], words[6]);
    done(0);
    return 0;
  }

  #transfer(
    operation: Operation,
    kind: "read" | "write",
    process: SimProcess,
    done: (result: number) => void,
  ): number {
    const { words, ring, opcode } = operation;
    const address = unsigned(words[4], words[5]);
    const length = words[6];
    if (opcode === Opcode.READ_FIXED || opcode === Opcode.WRITE_FIXED) {
      const registered = ring.buffers[words[10] & 0xffff];
      const isInside =
        registered !== undefined &&
        address >= registered.address &&
        address + length <= registered.address + registered.lengthBytes;
      if (!isInside) return -Errno.EFAULT;
      if (registered.pages !== undefined)
        return this.#transferPages(operation, kind, process, done, registered.pages);
    }
    const data = this.#parts.memory.view(address, length);
    if (typeof data === "number") return data;
    const offset = unsigned(words[2], words[3]);
    if (opcode === Opcode.READ_FIXED || opcode === Opcode.WRITE_FIXED) {
      return this.#io(operation, kind, offset, length, process, done, data);
    }
    operation.memory = this.#parts.memory.at(address);
    if (operation.memory !== undefined) operation.memory.users++;
    return this.#io(operation, kind, offset, length, process, done, data);
  }

  /** Transfers the pages of a request, which are in no process's memory. */
  #transferPages(
    operation: Operation,
    kind: "read" | "write",
    process: SimProcess,
    done: (result: number) => void,
    pages: RequestPages,
  ): number {
    const { words } = operation;
    const length = words[6];
    if (pages.isRead !== (kind === "read")) return -Errno.EFAULT;
    if (this.#parts.refusesPages()) return -Errno.EINVAL;
    const offset = unsigned(words[2], words[3]);
    const data = pages.bytes.subarray(words[4], words[4] + length);
    return this.#io(operation, kind, offset, length, process, done, data, pages);
  }

  #allocate(operation: Operation, process: SimProcess, done: (result: number) => void): number {
    const { words } = operation;
    const offset = unsigned(words[2], words[3]);
    const length = unsigned(words[4], words[5]);
    const mode = words[6];
    let kind: IoKind = "allocate";
    if (mode === (FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE)) kind = "punch";
    else if ((mode & ~FallocateMode.KEEP_SIZE) === FallocateMode.ZERO_RANGE) kind = "zero";
    else if ((mode & ~FallocateMode.KEEP_SIZE) !== 0) return -Errno.EOPNOTSUPP;
    return this.#io(operation, kind, offset, length, process, done);
  }

  #io(
    operation: Operation,
    kind: IoKind,
    offsetBytes: number,
    lengthBytes: number,
    process: SimProcess,
    done: (result: number) => void,
    data?: Uint8Array,
    pages?: RequestPages,
  ): number {
    const open = this.#fileOf(operation, process);
    if (open === undefined) return -Errno.EBADF;
    const { node } = open;
    if (node instanceof EventCounter) return readCounter(operation, node, data, done);
    const isDurable = kind === "write" && (operation.words[7] & RwFlag.DSYNC) !== 0;
    const io = new Io(kind, offsetBytes, lengthBytes, data, isDurable, done);
    operation.cancel = () => undefined;
    const status = open.start(io, process);
    if (status >= 0) pages?.add(io);
    return status;
  }

  #command(operation: Operation, process: SimProcess, done: (result: number) => void): number {
    const { words } = operation;
    const op = words[2] >>> 0;
    if (op === BLOCK_DISCARD) {
      const offset = unsigned(words[4], words[5]);
      const length = unsigned(words[12], words[13]);
      return this.#io(operation, "discard", offset, length, process, done);
    }
    const open = this.#fileOf(operation, process);
    if (open === undefined) return -Errno.EBADF;
    if (!(open.node instanceof CharacterDevice)) return -Errno.EOPNOTSUPP;
    const { ring } = operation;
    const address = words[4];
    const command: UringCommand = { op, words: words.subarray(12), address, ring, process, done };
    operation.cancel = () => command.cancel?.();
    open.node.command(command, open);
    return 0;
  }
}

function readCounter(
  operation: Operation,
  counter: EventCounter,
  data: Uint8Array | undefined,
  done: (result: number) => void,
): number {
  if (data === undefined || data.length < 8) return -Errno.EINVAL;
  const takeBack = counter.read((value) => {
    new DataView(data.buffer, data.byteOffset, 8).setBigUint64(0, value, true);
    done(8);
  });
  if (takeBack !== undefined) {
    operation.cancel = () => (takeBack() ? -Errno.ECANCELED : undefined);
  }
  return 0;
}

function cancel(ring: SimRing, low: number, high: number, by: Operation): number {
  for (const operation of ring.inFlight) {
    if (operation === by || operation.userLow !== low || operation.userHigh !== high) continue;
    const result = operation.cancel?.();
    if (result === undefined) return -Errno.EALREADY;
    ring.inFlight.delete(operation);
    release(operation);
    ring.complete(operation.userLow, operation.userHigh, result);
    return 0;
  }
  return -Errno.ENOENT;
}
