/**
 * Memory for the buffers of a queue that is about to be served. It is populated in slices, between other work of the
 * reactor: zeroing its pages takes longer than a turn may last.
 *
 * ```
 *   map ─▶ populate 256 KiB ─ turn ─▶ populate 256 KiB ─ … ─▶ the queue is made, and registers all of it
 * ```
 */
import { MappedMemory } from "@blksnap/uring";
import type { Slices } from "./slices.js";

/** About 0.1 ms of work. */
export const SLICE_BYTES: number = 256 * 1024;

export class QueueMemory {
  readonly #memory: MappedMemory;
  #isTaken = false;

  /** @throws UringError MAP_FAILED */
  constructor(lengthBytes: number) {
    this.#memory = MappedMemory.anonymous(lengthBytes);
  }

  /** Calls back, perhaps from inside, when it is populated or cannot be: in that case registering it will fail. */
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

  /** Passes the mapping to the caller, who unmaps it. */
  take(): MappedMemory {
    this.#isTaken = true;
    return this.#memory;
  }

  /** Takes the mapping back from the caller, who has no use for it. */
  giveBack(): void {
    this.#memory.unmap();
  }

  /** Unmaps it, unless it has been taken. */
  discard(): void {
    if (!this.#isTaken) this.#memory.unmap();
  }
}
