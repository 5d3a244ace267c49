/**
 * Memory that nothing uses any more, on its way back to the kernel: a slice in each turn of a reactor's loop, because
 * freeing 32 MiB at once takes 2 ms.
 */
import type { MappedMemory } from "./memory.js";
import { prepareNop } from "./operations.js";
import type { CompletionHandler } from "./reactor-options.js";
import type { Ring } from "./ring.js";

/** About 0.06 ms of work. */
const SLICE_BYTES = 2 ** 20;

export class FreedMemory implements CompletionHandler {
  readonly #ring: Ring;
  readonly #handlerId: number;
  readonly #left: MappedMemory[] = [];
  /** Of the first one. */
  #doneBytes = 0;
  #isArmed = false;

  constructor(ring: Ring, handlerId: number) {
    this.#ring = ring;
    this.#handlerId = handlerId;
  }

  /** Unmaps it in slices; one that is no longer than a slice at once. */
  add(memory: MappedMemory): void {
    if (memory.lengthBytes <= SLICE_BYTES) memory.unmap();
    else this.#left.push(memory);
    this.#arm();
  }

  onCompletion(): void {
    this.#isArmed = false;
    const [memory] = this.#left;
    if (memory === undefined) return;
    const leftBytes = memory.lengthBytes - this.#doneBytes;
    if (leftBytes > 0 && discarded(memory, this.#doneBytes, Math.min(SLICE_BYTES, leftBytes))) {
      this.#doneBytes += SLICE_BYTES;
    } else {
      this.#left.shift();
      this.#doneBytes = 0;
      memory.unmap();
    }
    this.#arm();
  }

  /** Unmaps the rest at once. */
  close(): void {
    for (const memory of this.#left.splice(0)) memory.unmap();
  }

  #arm(): void {
    if (this.#isArmed || this.#left.length === 0) return;
    this.#isArmed = true;
    prepareNop(this.#ring, 0, this.#handlerId, 0);
  }
}

/** False if the kernel refuses: then all is unmapped at once. */
function discarded(memory: MappedMemory, offsetBytes: number, lengthBytes: number): boolean {
  try {
    memory.discard(offsetBytes, lengthBytes);
    return true;
  } catch {
    return false;
  }
}
