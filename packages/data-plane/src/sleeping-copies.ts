/**
 * Holds copies of an area whose stores are not open yet, after a recovery: reads of the front, and writes that need
 * no copy, do not wait for them.
 */
import { CopyFault, type TrackerEngine } from "@blksnap/engine";

const EIO = 5;

export class SleepingCopies {
  readonly #engine: TrackerEngine;
  readonly #copies: Int32Array;
  #count = 0;

  constructor(engine: TrackerEngine) {
    this.#engine = engine;
    this.#copies = new Int32Array(engine.copies.size);
  }

  add(copy: number): void {
    this.#copies[this.#count++] = copy;
  }

  /** The stores are open: issues the copies. */
  begin(io: { submitCopy(copy: number): void }): void {
    for (let i = 0; i < this.#count; i++) io.submitCopy(this.#copies[i]);
  }

  /** The area is being dropped: waiting requests continue without a copy. */
  giveUp(): void {
    for (let i = 0; i < this.#count; i++) {
      this.#engine.onCopyDone(this.#copies[i], -EIO, CopyFault.WRITE);
    }
  }
}
