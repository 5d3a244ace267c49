/**
 * Memory for I/O that is registered with a reactor's ring in parts, because pinning 32 MiB at once takes 0.7 ms. It
 * consists of units, none of which lies in two parts.
 *
 * ```
 *   register() ─ turn ─▶ register() ─ … ─▶ I/O, by bufferIndexOf(unit) ─▶ free(): unregistered, then unmapped in slices
 * ```
 */
import { assert } from "./errors.js";
import { MappedMemory } from "./memory.js";
import type { Reactor } from "./reactor.js";

/** As a thousand devices with images need places in a ring's table, parts are no shorter. */
const PART_BYTES = 8 * 2 ** 20;

export interface PinnedUnits {
  readonly units: number;
  readonly unitBytes: number;
  /** Of all memory; what is behind the units is not registered. */
  readonly lengthBytes: number;
}

export class PinnedMemory {
  readonly memory: MappedMemory;
  readonly #reactor: Reactor;
  readonly #pinnedBytes: number;
  readonly #unitsOfPart: number;
  readonly #partBytes: number;
  readonly #indexes: number[] = [];

  /** @throws UringError MAP_FAILED */
  constructor(reactor: Reactor, { units, unitBytes, lengthBytes }: PinnedUnits) {
    this.#reactor = reactor;
    this.#pinnedBytes = units * unitBytes;
    this.#unitsOfPart = Math.max(1, Math.floor(PART_BYTES / unitBytes));
    this.#partBytes = this.#unitsOfPart * unitBytes;
    assert(lengthBytes >= this.#pinnedBytes, "the units have too little memory");
    this.memory = MappedMemory.anonymous(lengthBytes);
  }

  /** Registers the parts that lie before this end. @throws as Reactor.addBuffer() */
  register(endBytes: number = this.#pinnedBytes): void {
    const { address } = this.memory;
    for (;;) {
      const doneBytes = this.#indexes.length * this.#partBytes;
      const partBytes = Math.min(this.#partBytes, this.#pinnedBytes - doneBytes);
      if (partBytes <= 0 || doneBytes + partBytes > endBytes) return;
      this.#indexes.push(this.#reactor.addBuffer(address + doneBytes, partBytes));
      // A failed attempt unregisters it.
      this.#reactor.noteTaken(() => this.#indexes.pop());
    }
  }

  /** Index of the registered buffer that contains the unit. */
  bufferIndexOf(unit: number): number {
    return this.#indexes[Math.floor(unit / this.#unitsOfPart)];
  }

  /** I/O in flight keeps its pages; a second call does nothing. */
  unregister(): void {
    for (const index of this.#indexes.splice(0)) this.#reactor.removeBuffer(index);
  }

  /** Nothing uses it any more. A second call does nothing. */
  free(): void {
    this.unregister();
    this.#reactor.unmapInSlices(this.memory);
  }
}
