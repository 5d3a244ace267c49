/**
 * A ring whose operations a test carries out one by one, and files on a medium with a write cache: unsynced writes may
 * be lost in a power cut, sector by sector.
 */

import type { Dice } from "@blksnap/testing";
import { type CompletionHandler, LINK_TORN, MappedMemory, type Reactor } from "@blksnap/uring";

const SQE_WORDS = 16;
const SQES = 4096;
const SECTOR_BYTES = 512;
const EIO = 5;
const EAGAIN = 11;
const ENOMEM = 12;
const ECANCELED = 125;
const OP_NOP = 0;
const OP_FSYNC = 3;
const OP_WRITE = 23;
const IO_LINK = 4;
const RWF_DSYNC = 2;

interface CachedSector {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class MediumFile {
  readonly fd: number;
  /** What certainly survives a power cut. */
  durable: Uint8Array;
  readonly #cached: CachedSector[] = [];
  syncs = 0;
  /** The medium reports syncs that it has not done. */
  lies = false;
  /** So many writes succeed without effect. */
  missedWrites = 0;

  constructor(fd: number, lengthBytes: number) {
    this.fd = fd;
    this.durable = new Uint8Array(lengthBytes);
  }

  write(offset: number, bytes: Uint8Array): void {
    if (this.missedWrites-- > 0) return;
    for (let at = 0; at < bytes.length; at += SECTOR_BYTES) {
      const sector = bytes.slice(at, at + SECTOR_BYTES);
      this.#cached.push({ offset: offset + at, bytes: sector });
    }
  }

  sync(): void {
    this.syncs++;
    if (this.lies) return;
    for (const { offset, bytes } of this.#cached.splice(0)) this.durable.set(bytes, offset);
  }

  grow(lengthBytes: number): void {
    const longer = new Uint8Array(lengthBytes);
    longer.set(this.durable);
    this.durable = longer;
  }

  /** The content after a power cut now. */
  afterPowerCut(dice: Dice): Uint8Array {
    const found = this.durable.slice();
    const chance = dice.pick([0, 0.2, 0.5, 0.8, 1]);
    for (const { offset, bytes } of this.#cached) {
      if (dice.next() < chance) found.set(bytes, offset);
    }
    return found;
  }
}

interface Operation {
  readonly opcode: number;
  readonly file: MediumFile | undefined;
  readonly address: number;
  readonly offset: number;
  readonly length: number;
  readonly data: number;
  readonly handler: number;
  /** A write that syncs itself. */
  readonly isSynced: boolean;
  /** Its bytes are in the cache, and only the sync remains. */
  isWritten?: boolean;
  /** The kernel had accepted the chain up to here when it had no more memory. */
  isTorn?: boolean;
}

/** The result to force on a chain's operation; undefined: none. */
export type FaultPlan = (file: MediumFile | undefined, isWrite: boolean) => number | undefined;

/** Stands in for a Reactor: step() carries out one operation of one chain. */
export class FakeReactor {
  readonly ring = {
    sqes32: new Int32Array(SQE_WORDS * SQES),
    sqeWords: SQE_WORDS,
    nextSqe: (): number => (this.#prepared++ % SQES) * SQE_WORDS,
    reserve: (): void => undefined,
  };
  faults: FaultPlan = () => undefined;
  /** How often a chain is accepted in two parts, and whether the ring runs the second one. */
  tearChance = 0;
  runsTornRest = false;
  torn = 0;
  /** How often the kernel has no memory or thread for an operation. */
  shortChance = 0;
  shortages = 0;
  /** Operations submitted to the kernel. */
  submitted = 0;
  readonly #dice: Dice;
  readonly #handlers: (CompletionHandler | undefined)[] = [];
  readonly #files: (MediumFile | undefined)[] = [];
  readonly #media = new Map<number, MediumFile>();
  readonly #chains: Operation[][] = [];
  readonly #timers: (() => void)[] = [];
  #nextFd = 3;
  #prepared = 0;
  #taken = 0;

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  asReactor(): Reactor {
    return this as unknown as Reactor;
  }

  noteTaken(): void {}

  makeFile(lengthBytes: number): MediumFile {
    const file = new MediumFile(this.#nextFd++, lengthBytes);
    this.#media.set(file.fd, file);
    return file;
  }

  removeMedium(file: MediumFile): void {
    this.#media.delete(file.fd);
  }

  addHandler(handler: CompletionHandler): number {
    return this.#handlers.push(handler) - 1;
  }

  removeHandler(id: number): void {
    this.#handlers[id] = undefined;
  }

  addFile(fd: number): number {
    return this.#files.push(this.#media.get(fd)) - 1;
  }

  setTimer(_: number, callback: () => void): () => void {
    this.#timers.push(callback);
    return callback;
  }

  cancelTimer(callback: () => void): void {
    this.#timers.splice(this.#timers.indexOf(callback), 1);
  }

  removeFile(index: number): void {
    if (this.#files[index] === undefined) throw new Error("a file is removed twice");
    this.#files[index] = undefined;
  }

  get filesOpen(): number {
    return this.#files.filter((file) => file !== undefined).length;
  }

  get isIdle(): boolean {
    this.#submit();
    return this.#chains.length === 0 && this.#timers.length === 0;
  }

  /**
   * Carries out and completes one operation of some chain. A synced write takes two steps: a power cut in between
   * leaves any part of it.
   */
  step(): void {
    this.#submit();
    if (this.#chains.length === 0) {
      this.#timers.shift()?.();
      return;
    }
    const index = this.#dice.below(this.#chains.length);
    const chain = this.#chains[index]!;
    const operation = chain[0]!;
    const result = this.#carryOut(operation);
    const needsSync = operation.isSynced && operation.isWritten !== true;
    if (needsSync && result === operation.length) {
      operation.isWritten = true;
      return;
    }
    chain.shift();
    if (chain.length === 0) this.#chains.splice(index, 1);
    const failed = result < (operation.opcode === OP_WRITE ? operation.length : 0);
    this.#complete(operation, result);
    if (!failed || chain.length === 0) return;
    this.#chains.splice(this.#chains.indexOf(chain), 1);
    for (const cancelled of chain) this.#complete(cancelled, -ECANCELED);
  }

  #submit(): void {
    let chain: Operation[] = [];
    for (; this.#taken < this.#prepared; this.#taken++) {
      const at = (this.#taken % SQES) * SQE_WORDS;
      const words = this.ring.sqes32.subarray(at, at + SQE_WORDS);
      const opcode = words[0]! & 0xff;
      chain.push({
        opcode,
        file: opcode === OP_NOP ? undefined : this.#files[words[1]!],
        offset: (words[2]! >>> 0) + words[3]! * 2 ** 32,
        address: (words[4]! >>> 0) + words[5]! * 2 ** 32,
        length: words[6]!,
        data: words[8]!,
        handler: words[9]!,
        isSynced: opcode === OP_WRITE && (words[7]! & RWF_DSYNC) !== 0,
      });
      this.submitted++;
      if (((words[0]! >>> 8) & IO_LINK) !== 0) continue;
      this.#push(chain);
      chain = [];
    }
  }

  /** A chain that is accepted in part becomes two in the kernel, and the ring fails the second one. */
  #push(chain: Operation[]): void {
    if (this.tearChance > 0 && chain.length > 1 && this.#dice.next() < this.tearChance) {
      const rest = chain.splice(1 + this.#dice.below(chain.length - 1));
      if (!this.runsTornRest) rest[0]!.isTorn = true;
      this.#chains.push(rest);
      this.torn++;
    }
    this.#chains.push(chain);
  }

  #carryOut({ opcode, file, address, offset, length, isTorn, isWritten }: Operation): number {
    if (isTorn === true) return LINK_TORN;
    if (opcode === OP_NOP) return 0;
    if (file === undefined) throw new Error("an operation on a file that is not registered");
    if (isWritten !== true && this.shortChance > 0 && this.#dice.next() < this.shortChance) {
      this.shortages++;
      return -(opcode === OP_FSYNC ? ECANCELED : this.#dice.pick([EAGAIN, ENOMEM, ECANCELED]));
    }
    const isSync = opcode === OP_FSYNC || isWritten === true;
    const planned = this.faults(file, !isSync);
    if (isSync) {
      if (planned !== undefined) return Math.min(planned, -EIO);
      file.sync();
      return opcode === OP_FSYNC ? 0 : length;
    }
    const written = planned ?? length;
    if (written > 0) file.write(offset, memoryAt(address, written));
    return written;
  }

  #complete({ handler, data }: Operation, result: number): void {
    const target = this.#handlers[handler];
    if (target === undefined) throw new Error("a completion for a handler that was removed");
    target.onCompletion(data, result, 0);
  }
}

const mappings: MappedMemory[] = [];
const anonymous = MappedMemory.anonymous;
MappedMemory.anonymous = (lengthBytes) => {
  const memory = anonymous.call(MappedMemory, lengthBytes);
  mappings.push(memory);
  return memory;
};

/** Memory of this process by its address, as the kernel sees it. */
export function memoryAt(address: number, length: number): Uint8Array {
  // The newest: a later simulated machine uses the same addresses.
  const mapping = mappings.findLast(
    ({ address: from, buffer }) => address >= from && address + length <= from + buffer.byteLength,
  );
  if (mapping === undefined) throw new Error("memory that is not mapped");
  return new Uint8Array(mapping.buffer, address - mapping.address, length);
}
