/**
 * The slots of a server: a buffer for a piece of a request each. For targets they are the tags of a queue, which all
 * exports share.
 */
import { NOT_REGISTERED, type RequestQueue } from "@blksnap/ublk";
import { high32, low32, type MappedMemory } from "@blksnap/uring";
import type { Arena } from "./arena.js";
import { assert } from "./errors.js";

/** Called when a target has completed a slot. */
export type SlotEnd = (slot: number, result: number) => void;

export class SlotQueue implements RequestQueue {
  readonly depth: number;
  readonly maxIoBytes: number;
  readonly bufferLow: Int32Array;
  readonly bufferHigh: Int32Array;
  readonly bufferIndex: Int32Array;
  /** Free slots. */
  freeSlots: number;
  readonly #arena: Arena;
  readonly #onEnd: SlotEnd;
  readonly #free: Int32Array;
  readonly #inTarget: Uint8Array;
  readonly #op: Uint8Array;
  readonly #flags: Int32Array;
  readonly #sectors: Int32Array;
  readonly #startLow: Int32Array;
  readonly #startHigh: Int32Array;
  readonly #replaced: (MappedMemory | undefined)[];
  #keepers = 0;
  #isReleased = false;

  constructor(depth: number, maxIoBytes: number, arena: Arena, end: SlotEnd) {
    this.depth = depth;
    this.maxIoBytes = maxIoBytes;
    this.bufferIndex = new Int32Array(depth);
    this.#arena = arena;
    this.#onEnd = end;
    this.bufferLow = new Int32Array(depth);
    this.bufferHigh = new Int32Array(depth);
    this.#free = new Int32Array(depth);
    this.freeSlots = depth;
    for (let slot = 0; slot < depth; slot++) {
      this.bufferIndex[slot] = arena.bufferIndexOf(slot);
      this.bufferLow[slot] = low32(arena.address + slot * maxIoBytes);
      this.bufferHigh[slot] = high32(arena.address + slot * maxIoBytes);
      this.#free[slot] = depth - 1 - slot;
    }
    this.#inTarget = new Uint8Array(depth);
    this.#op = new Uint8Array(depth);
    this.#flags = new Int32Array(depth);
    this.#sectors = new Int32Array(depth);
    this.#startLow = new Int32Array(depth);
    this.#startHigh = new Int32Array(depth);
    this.#replaced = new Array<MappedMemory | undefined>(depth).fill(undefined);
  }

  /** A free slot; only if freeSlots is not 0. */
  acquire(): number {
    this.freeSlots--;
    return this.#free[this.freeSlots];
  }

  give(slot: number): void {
    assert(this.#inTarget[slot] === 0, "a slot is freed that a target has");
    this.#free[this.freeSlots] = slot;
    this.freeSlots++;
  }

  /** Sets the request for the target. */
  describe(
    slot: number,
    op: number,
    flags: number,
    startLow: number,
    startHigh: number,
    sectors: number,
  ): void {
    this.#op[slot] = op;
    this.#flags[slot] = flags;
    this.#startLow[slot] = startLow;
    this.#startHigh[slot] = startHigh;
    this.#sectors[slot] = sectors;
  }

  /** The slot is the target's until complete(). */
  lend(slot: number): void {
    this.#inTarget[slot] = 1;
  }

  isLent(slot: number): boolean {
    return this.#inTarget[slot] === 1;
  }

  /** The slot's offset in the arena, or -1 if its buffer was replaced. */
  arenaAt(slot: number): number {
    return this.#replaced[slot] === undefined ? slot * this.maxIoBytes : -1;
  }

  op(tag: number): number {
    return this.#op[tag];
  }

  flags(tag: number): number {
    return this.#flags[tag];
  }

  sectors(tag: number): number {
    return this.#sectors[tag];
  }

  startSectorLow(tag: number): number {
    return this.#startLow[tag];
  }

  startSectorHigh(tag: number): number {
    return this.#startHigh[tag];
  }

  bufferBytes(tag: number): Uint8Array {
    const own = this.#replaced[tag];
    if (own !== undefined) return new Uint8Array(own.buffer, 0, this.maxIoBytes);
    return this.#arena.bytes.subarray(tag * this.maxIoBytes, (tag + 1) * this.maxIoBytes);
  }

  complete(tag: number, result: number): void {
    assert(this.#inTarget[tag] === 1, "a request is answered twice");
    this.#inTarget[tag] = 0;
    this.#onEnd(tag, result);
  }

  replaceBuffer(tag: number, memory: MappedMemory): void {
    assert(memory.lengthBytes >= this.maxIoBytes, "a buffer is too small");
    this.#replaced[tag] = memory;
    this.bufferIndex[tag] = NOT_REGISTERED;
    this.bufferLow[tag] = low32(memory.address);
    this.bufferHigh[tag] = high32(memory.address);
  }

  copyRequest(): boolean {
    return false;
  }

  keepBuffers(): void {
    this.#keepers++;
  }

  releaseBuffers(): void {
    assert(this.#keepers > 0, "buffers are released that are not kept");
    this.#keepers--;
    if (this.#keepers === 0 && this.#isReleased) this.#arena.free();
  }

  /** The server has ended: its memory is freed as soon as no target keeps it. */
  release(): void {
    this.#arena.unregister();
    this.#isReleased = true;
    if (this.#keepers === 0) this.#arena.free();
  }
}
