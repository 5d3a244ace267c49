/**
 * Memory for parts, shared with the threads that sum and write them: nothing is copied or handed over between threads.
 * New memory for each part would cost much: the kernel clears it and gives it page by page.
 */
import { CHUNK_BYTES } from "./chunks.js";

/** A part of up to this is a small one: it takes less time to copy than to hand to a thread. */
export const SMALL_BYTES: number = 2 ** 18;
const LARGE_SLOTS = 8;
const SMALL_SLOTS = 64;
/** Of WebAssembly's memory. */
const PAGE_BYTES = 65_536;

export type Slot = Uint8Array<SharedArrayBuffer>;

interface Memory {
  readonly buffer: SharedArrayBuffer;
}

interface MemorySize {
  readonly initial: number;
  readonly maximum: number;
  readonly shared: true;
}

const { WebAssembly } = globalThis as unknown as {
  readonly WebAssembly: { readonly Memory: new (size: MemorySize) => Memory };
};

/** Begins at a page, as WebAssembly's memory does: direct I/O wants that. Anything else does where there is none. */
function sharedMemory(bytes: number): SharedArrayBuffer {
  const pages = bytes / PAGE_BYTES;
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
  } catch {
    // It takes much of the address space, which `ulimit -v` may keep small.
    return new SharedArrayBuffer(bytes);
  }
}

class Slots {
  readonly #slotBytes: number;
  readonly #count: number;
  readonly #free: number[] = [];
  #memory: SharedArrayBuffer | undefined;

  constructor(slotBytes: number, count: number) {
    this.#slotBytes = slotBytes;
    this.#count = count;
  }

  get memory(): SharedArrayBuffer {
    if (this.#memory === undefined) {
      this.#memory = sharedMemory(this.#slotBytes * this.#count);
      for (let index = this.#count - 1; index >= 0; index--) {
        this.#free.push(index * this.#slotBytes);
      }
    }
    return this.#memory;
  }

  take(lengthBytes: number): Slot {
    const { memory } = this;
    return new Uint8Array(memory, this.#free.pop()!, lengthBytes);
  }

  giveBack({ byteOffset }: Slot): void {
    this.#free.push(byteOffset);
  }
}

export class PartMemory {
  readonly #small = new Slots(SMALL_BYTES, SMALL_SLOTS);
  readonly #large = new Slots(CHUNK_BYTES, LARGE_SLOTS);

  /** How many parts of this length may be in flight: more have no memory. */
  static depthOf(lengthBytes: number): number {
    return lengthBytes <= SMALL_BYTES ? SMALL_SLOTS : LARGE_SLOTS;
  }

  /** At most depthOf() are taken at a time. */
  take(lengthBytes: number): Slot {
    return (lengthBytes <= SMALL_BYTES ? this.#small : this.#large).take(lengthBytes);
  }

  giveBack(slot: Slot): void {
    (slot.length <= SMALL_BYTES ? this.#small : this.#large).giveBack(slot);
  }
}
