/** Addresses of the memory that programs pass to the kernel. */
import { Errno } from "./errno.js";

const GRANULE_BYTES = 2 ** 20;
/** Far from a real process's addresses, and below 2^47. */
const FIRST_ADDRESS = 2 ** 44;

export class Mapping {
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly address: number;
  /** I/O in flight, except that in registered buffers, which are pinned. */
  users = 0;
  /** Called at its end: memory of a file. */
  readonly onEnd: (() => void) | undefined;

  constructor(buffer: ArrayBuffer, address: number, onEnd?: () => void) {
    this.buffer = buffer;
    this.bytes = new Uint8Array(buffer);
    this.address = address;
    this.onEnd = onEnd;
  }
}

export class Memory {
  #next = FIRST_ADDRESS;
  readonly #byGranule = new Map<number, Mapping>();

  add(buffer: ArrayBuffer, onEnd?: () => void): Mapping {
    const address = this.#next;
    const granules = Math.ceil(buffer.byteLength / GRANULE_BYTES) + 1;
    this.#next += granules * GRANULE_BYTES;
    const mapping = new Mapping(buffer, address, onEnd);
    for (let i = 0; i < granules; i++) this.#byGranule.set(address / GRANULE_BYTES + i, mapping);
    return mapping;
  }

  /** Ends a mapping. Calling it again does nothing. */
  remove(mapping: Mapping): void {
    const first = mapping.address / GRANULE_BYTES;
    if (this.#byGranule.get(first) !== mapping) return;
    for (let i = 0; this.#byGranule.get(first + i) === mapping; i++) {
      this.#byGranule.delete(first + i);
    }
    mapping.onEnd?.();
  }

  at(address: number): Mapping | undefined {
    return this.#byGranule.get(Math.floor(address / GRANULE_BYTES));
  }

  /** The bytes at an address, or a negative errno. */
  view(address: number, lengthBytes: number): Uint8Array | number {
    const mapping = this.at(address);
    if (mapping === undefined) return -Errno.EFAULT;
    const at = address - mapping.address;
    if (at + lengthBytes > mapping.bytes.length) return -Errno.EFAULT;
    return mapping.bytes.subarray(at, at + lengthBytes);
  }
}
