/**
 * One simulated io_uring: the memory of both rings as a program sees it, and the operations in flight.
 */
import type { NativeRing } from "@blksnap/uring/testing";
import type { Mapping } from "./memory.js";
import type { Ending, OpenFile } from "./process.js";
import type { Random } from "./random.js";
import type { RequestPages } from "./request-pages.js";

const SQE128 = 0x400;
const DEFER_TASKRUN = 0x2000;
const CQ_OVERFLOW = 2;
const CQE_BYTES = 16;
/** Offsets in the memory of the rings. */
const At = {
  sqHead: 0,
  sqTail: 4,
  sqMask: 8,
  sqFlags: 12,
  sqDropped: 16,
  cqHead: 20,
  cqTail: 24,
  cqMask: 28,
  cqOverflow: 32,
  cqes: 64,
} as const;

interface RegisteredBuffer {
  readonly address: number;
  readonly lengthBytes: number;
  /** Pages of a driver's request; the address is 0 in that case. */
  readonly pages?: RequestPages;
}

/** An operation that has been submitted. */
export interface Operation {
  readonly ring: SimRing;
  readonly opcode: number;
  readonly flags: number;
  readonly userLow: number;
  readonly userHigh: number;
  /** Its entry's words, copied. */
  readonly words: Int32Array;
  /** The operation linked to it. */
  next: Operation | undefined;
  /** Cancels it. @returns its result, or undefined if it cannot be cancelled */
  cancel: (() => number | undefined) | undefined;
  /** Released at its end. */
  file: OpenFile | undefined;
  /** The memory that it reads into or writes from. */
  memory: Mapping | undefined;
  isFixed: boolean;
}

/** Releases what an ended operation holds. */
export function release(operation: Operation): void {
  if (!operation.isFixed) operation.file?.release();
  if (operation.memory !== undefined) operation.memory.users--;
  operation.file = undefined;
  operation.memory = undefined;
}

function powerOfTwo(count: number): number {
  return 2 ** Math.ceil(Math.log2(count));
}

export class SimRing implements Ending {
  readonly native: NativeRing;
  readonly fd: number;
  readonly sqeWords: number;
  readonly words: Int32Array;
  readonly inFlight: Set<Operation> = new Set();
  readonly files: (OpenFile | undefined)[] = [];
  readonly buffers: (RegisteredBuffer | undefined)[] = [];
  isClosed = false;
  /** Called when there is a completion that a program may see. */
  onReady: (() => void) | undefined;
  readonly #rings: Int32Array;
  readonly #sqes: Int32Array;
  readonly #sqMask: number;
  readonly #cqEntries: number;
  readonly #isDeferred: boolean;
  /** Completions that are not in the ring yet, four words each: low, high, result, flags. */
  readonly #waiting: number[] = [];
  readonly #random: Random;
  readonly #onEnd: () => void;

  constructor(
    fd: number,
    entries: number,
    cqEntries: number,
    flags: number,
    random: Random,
    onEnd: () => void,
  ) {
    const sqEntries = powerOfTwo(entries);
    this.#cqEntries = powerOfTwo(cqEntries);
    this.fd = fd;
    this.sqeWords = (flags & SQE128) === 0 ? 16 : 32;
    this.#isDeferred = (flags & DEFER_TASKRUN) !== 0;
    this.#random = random;
    this.#onEnd = onEnd;
    const rings = new ArrayBuffer(At.cqes + this.#cqEntries * CQE_BYTES);
    const sqes = new ArrayBuffer(sqEntries * this.sqeWords * 4);
    this.#rings = new Int32Array(rings);
    this.#sqes = new Int32Array(sqes);
    this.words = this.#sqes;
    this.#sqMask = sqEntries - 1;
    this.#rings[At.sqMask >> 2] = sqEntries - 1;
    this.#rings[At.cqMask >> 2] = this.#cqEntries - 1;
    this.native = {
      fd,
      features: 0xffff,
      sqEntries,
      cqEntries: this.#cqEntries,
      offsets: At,
      rings,
      sqes,
      handle: this,
    };
  }

  /** Completions that a program can see, or will see when it enters. */
  get ready(): number {
    const visible = (this.#rings[At.cqTail >> 2] - this.#rings[At.cqHead >> 2]) | 0;
    return visible + this.#waiting.length / 4;
  }

  /** Entries that were prepared and published. */
  get offered(): number {
    return (this.#rings[At.sqTail >> 2] - this.#rings[At.sqHead >> 2]) | 0;
  }

  /** Takes the next entry. @returns the index of its first word */
  takeEntry(): number {
    const head = this.#rings[At.sqHead >> 2];
    this.#rings[At.sqHead >> 2] = (head + 1) | 0;
    return (head & this.#sqMask) * this.sqeWords;
  }

  complete(userLow: number, userHigh: number, result: number): void {
    if (this.isClosed) return;
    this.#waiting.push(userLow, userHigh, result, 0);
    if (!this.#isDeferred) this.post();
    this.onReady?.();
  }

  /** Puts completions into the ring, in order, as far as there is room. */
  post(): void {
    const rings = this.#rings;
    const waiting = this.#waiting;
    const room = this.#cqEntries - ((rings[At.cqTail >> 2] - rings[At.cqHead >> 2]) | 0);
    const count = Math.min(room, waiting.length / 4);
    for (let i = 0; i < count; i++) {
      const tail = rings[At.cqTail >> 2];
      const at = (At.cqes >> 2) + (tail & (this.#cqEntries - 1)) * 4;
      for (let word = 0; word < 4; word++) rings[at + word] = waiting[i * 4 + word];
      rings[At.cqTail >> 2] = (tail + 1) | 0;
    }
    waiting.splice(0, count * 4);
    if (waiting.length > 0) rings[At.sqFlags >> 2] |= CQ_OVERFLOW;
    else rings[At.sqFlags >> 2] &= ~CQ_OVERFLOW;
  }

  /** How many of these entries the kernel accepts this time. */
  taken(count: number, partialOneIn: number): number {
    if (partialOneIn === 0 || count < 2 || !this.#random.oneIn(partialOneIn)) return count;
    return 1 + this.#random.below(count - 1);
  }

  setFile(index: number, open: OpenFile | undefined): void {
    this.files[index]?.release();
    this.files[index] = open;
  }

  end(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onReady = undefined;
    for (const operation of this.inFlight) {
      operation.cancel?.();
      release(operation);
    }
    this.inFlight.clear();
    for (const open of this.files) open?.release();
    this.files.length = 0;
    this.#onEnd();
  }
}
