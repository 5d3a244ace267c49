/**
 * Memory for parts, shared with the threads that sum and write them: no copies or transfers between threads. New
 * memory for each part would be expensive: the kernel clears it and allocates it page by page.
 */
import { CHUNK_BYTES } from "./chunks.js";

/** A part of at most this size is cheaper to copy than to transfer to a thread. */
export const SMALL_BYTES: number = 2 ** 18;
const LARGE_SLOTS = 8;
const SMALL_SLOTS = 64;
/** Page size of WebAssembly's memory. */
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

/** Page-aligned like WebAssembly's memory, as direct I/O requires. Falls back to any other memory. */
function sharedMemory(bytes: number): SharedArrayBuffer {
  const pages = bytes / PAGE_BYTES;
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer;
  } catch {
    // It reserves much address space, which `ulimit -v` may limit.
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

  acquire(lengthBytes: number): Slot {
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

  /** How many parts of this length may be in flight, limited by the memory. */
  static depthOf(lengthBytes: number): number {
    return lengthBytes <= SMALL_BYTES ? SMALL_SLOTS : LARGE_SLOTS;
  }

  /** At most depthOf() are in use at a time. */
  acquire(lengthBytes: number): Slot {
    return (lengthBytes <= SMALL_BYTES ? this.#small : this.#large).acquire(lengthBytes);
  }

  giveBack(slot: Slot): void {
    (slot.length <= SMALL_BYTES ? this.#small : this.#large).giveBack(slot);
  }
}
