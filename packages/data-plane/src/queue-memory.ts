/**
 * Memory for the buffers of a queue that is about to be served. It is taken from the kernel in slices, with what
 * else the reactor has to do between them: its pages are zeroed, for longer than a turn may last.
 *
 * ```
 *   map ─▶ populate 256 KiB ─ turn ─▶ populate 256 KiB ─ … ─▶ the queue is made, and registers it whole
 * ```
 */
import { MappedMemory } from "@blksnap/uring";
import type { Slices } from "./slices.js";

/** Some 0.1 ms of work. */
export const SLICE_BYTES: number = 256 * 1024;

export class QueueMemory {
  readonly #memory: MappedMemory;
  #isTaken = false;

  /** @throws UringError MAP_FAILED */
  constructor(lengthBytes: number) {
    this.#memory = MappedMemory.anonymous(lengthBytes);
  }

  /** Calls back, perhaps from inside, when it is populated, or cannot be: then who registers it is told why. */
  populate(slices: Slices, done: () => void): void {
    const { lengthBytes } = this.#memory;
    let doneBytes = 0;
    slices.run(() => {
      const sliceBytes = Math.min(SLICE_BYTES, lengthBytes - doneBytes);
      const isPopulated = this.#memory.populate(doneBytes, sliceBytes);
      doneBytes += sliceBytes;
      if (isPopulated && doneBytes < lengthBytes) return true;
      done();
      return false;
    });
  }

  /** The caller unmaps it. */
  take(): MappedMemory {
    this.#isTaken = true;
    return this.#memory;
  }

  /** The caller that took it has no use for it. */
  giveBack(): void {
    this.#memory.unmap();
  }

  /** It is not taken any more. */
  discard(): void {
    if (!this.#isTaken) this.#memory.unmap();
  }
}
