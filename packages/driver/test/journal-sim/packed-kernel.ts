/**
 * A ring and its medium for millions of operations: in order, without an object per operation. Files are only appended
 * to; unsynced data may be lost in a power cut, sector by sector.
 */

import type { Dice } from "@blksnap/testing";
import type { CompletionHandler, Reactor } from "@blksnap/uring";
import { memoryAt } from "./medium.js";

const SQE_WORDS = 16;
const SQES = 1024;
const SECTOR_BYTES = 512;
const OP_NOP = 0;
const OP_FSYNC = 3;
const OP_WRITE = 23;
const RWF_DSYNC = 2;

export class PackedFile {
  readonly fd: number;
  content: Uint8Array;
  syncs = 0;
  #dirtyFrom = 0;
  #dirtyTo = 0;

  constructor(fd: number, lengthBytes: number) {
    this.fd = fd;
    this.content = new Uint8Array(lengthBytes);
  }

  write(offset: number, bytes: Uint8Array): void {
    if (offset + bytes.length > this.content.length) throw new Error("a write behind the log");
    this.content.set(bytes, offset);
    if (this.#dirtyFrom === this.#dirtyTo) this.#dirtyFrom = offset;
    this.#dirtyTo = offset + bytes.length;
  }

  sync(): void {
    this.syncs++;
    this.#dirtyFrom = this.#dirtyTo;
  }

  grow(lengthBytes: number): void {
    const longer = new Uint8Array(lengthBytes);
    longer.set(this.content);
    this.content = longer;
  }

  /** The content after a power cut now. */
  afterPowerCut(dice: Dice): Uint8Array {
    const found = this.content.slice();
    const chance = dice.pick([0, 0.5, 1]);
    for (let at = this.#dirtyFrom; at < this.#dirtyTo; at += SECTOR_BYTES) {
      if (dice.next() >= chance) found.fill(0, at, at + SECTOR_BYTES);
    }
    return found;
  }
}

/** Replaces a Reactor: step() carries out what was prepared. */
export class PackedKernel {
  readonly ring = {
    sqes32: new Int32Array(SQE_WORDS * SQES),
    sqeWords: SQE_WORDS,
    nextSqe: (): number => (this.#prepared++ % SQES) * SQE_WORDS,
    reserve: (): void => undefined,
  };
  operations = 0;
  /** Called before the operation of this number. */
  cutAt = -1;
  onCut: () => void = () => undefined;
  readonly #handlers: (CompletionHandler | undefined)[] = [];
  readonly #files: (PackedFile | undefined)[] = [];
  readonly #media = new Map<number, PackedFile>();
  #nextFd = 3;
  #prepared = 0;
  #taken = 0;

  asReactor(): Reactor {
    return this as unknown as Reactor;
  }

  noteTaken(): void {}

  makeFile(lengthBytes: number): PackedFile {
    const file = new PackedFile(this.#nextFd++, lengthBytes);
    this.#media.set(file.fd, file);
    return file;
  }

  /** Uses a file that was made elsewhere. */
  useFile(file: PackedFile): void {
    this.#media.set(file.fd, file);
  }

  removeMedium(file: PackedFile): void {
    this.#media.delete(file.fd);
  }

  addHandler(handler: CompletionHandler): number {
    return this.#handlers.push(handler) - 1;
  }

  removeHandler(id: number): void {
    this.#handlers[id] = undefined;
  }

  addFile(fd: number): number {
    const free = this.#files.indexOf(undefined);
    const index = free < 0 ? this.#files.length : free;
    this.#files[index] = this.#media.get(fd);
    return index;
  }

  removeFile(index: number): void {
    this.#files[index] = undefined;
  }

  get filesOpen(): number {
    return this.#files.filter((file) => file !== undefined).length;
  }

  /** Carries out one operation. Returns false if there is none. */
  step(): boolean {
    if (this.#taken === this.#prepared) return false;
    if (this.operations++ === this.cutAt) this.onCut();
    const words = this.ring.sqes32;
    const at = (this.#taken++ % SQES) * SQE_WORDS;
    const opcode = words[at]! & 0xff;
    const data = words[at + 8]!;
    const handler = this.#handlers[words[at + 9]!]!;
    if (opcode === OP_NOP) {
      handler.onCompletion(data, 0, 0);
      return true;
    }
    const file = this.#files[words[at + 1]!]!;
    if (opcode === OP_FSYNC) {
      file.sync();
      handler.onCompletion(data, 0, 0);
      return true;
    }
    if (opcode !== OP_WRITE) throw new Error(`operation ${opcode}`);
    const length = words[at + 6]!;
    const address = (words[at + 4]! >>> 0) + words[at + 5]! * 2 ** 32;
    file.write((words[at + 2]! >>> 0) + words[at + 3]! * 2 ** 32, memoryAt(address, length));
    if ((words[at + 7]! & RWF_DSYNC) !== 0) {
      // A power cut leaves any part of a write whose sync has not ended.
      if (this.operations++ === this.cutAt) this.onCut();
      file.sync();
    }
    handler.onCompletion(data, length, 0);
    return true;
  }
}
