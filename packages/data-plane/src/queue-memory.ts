/**
 * Memory for the buffers of a queue that is about to be served. It is populated and pinned in slices, between other
 * work of the reactor: all at once takes longer than a turn may last.
 *
 * ```
 *   map ─▶ populate 256 KiB ─ turn ─▶ … ─▶ register 8 MiB ─ turn ─▶ populate 256 KiB ─ … ─▶ the queue is made
 * ```
 */
import { PinnedMemory, type PinnedUnits, type Reactor } from "@blksnap/uring";
import type { Slices } from "./slices.js";

/** About 0.1 ms of work. */
export const SLICE_BYTES: number = 256 * 1024;

export class QueueMemory {
  readonly #pinned: PinnedMemory;
  #isHandedOver = false;

  /** @throws UringError MAP_FAILED */
  constructor(reactor: Reactor, units: PinnedUnits) {
    this.#pinned = new PinnedMemory(reactor, units);
  }

  /** Calls back, perhaps from inside, when it is pinned or cannot be: in that case the queue's own attempt will fail. */
  populate(slices: Slices, done: () => void): void {
    const { memory } = this.#pinned;
    const { lengthBytes } = memory;
    let doneBytes = 0;
    slices.run(() => {
      const sliceBytes = Math.min(SLICE_BYTES, lengthBytes - doneBytes);
      const isPopulated = memory.populate(doneBytes, sliceBytes);
      doneBytes += sliceBytes;
      if (isPopulated && this.#register(doneBytes) && doneBytes < lengthBytes) return true;
      done();
      return false;
    });
  }

  #register(endBytes: number): boolean {
    try {
      this.#pinned.register(endBytes);
      return true;
    } catch {
      return false;
    }
  }

  /** Passes the memory to the caller, who frees it. */
  handOver(): PinnedMemory {
    this.#isHandedOver = true;
    return this.#pinned;
  }

  /** Takes the memory back from the caller, who has no use for it. */
  giveBack(): void {
    this.#pinned.free();
  }

  /** Frees it, unless it has been handed over. */
  discard(): void {
    if (!this.#isHandedOver) this.#pinned.free();
  }
}
