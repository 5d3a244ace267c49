/**
 * The present size of an original. A file may be on a network or in user space: if its server does not answer,
 * fstat(2) does not return, and this thread serves all other devices. So another thread makes the call, one at a
 * time, because each that hangs keeps one of the few threads that all calls on files share.
 */
import { type BackingFile, presentCapacityBytes } from "@blksnap/ublk";
import { bounded } from "@blksnap/uring";
import { noAnswer } from "../records/persistent-directory.js";
import { CAPACITY_PATIENCE_MS } from "../time-limits.js";

export class PresentCapacity {
  readonly #backing: BackingFile;
  readonly #ask: (backing: BackingFile) => Promise<number>;
  #lastBytes: number;
  #asking: Promise<number> | undefined;
  #isLate = false;

  constructor(backing: BackingFile, ask: typeof presentCapacityBytes = presentCapacityBytes) {
    this.#backing = backing;
    this.#ask = ask;
    this.#lastBytes = backing.params.capacityBytes;
  }

  /** @returns 0 for one that is gone; for one that does not answer, what it answered last */
  async get(): Promise<number> {
    if (this.#isLate) return this.#lastBytes;
    this.#asking ??= this.#look();
    try {
      return await bounded(this.#asking, CAPACITY_PATIENCE_MS, noAnswer);
    } catch {
      this.#isLate = this.#asking !== undefined;
      return this.#lastBytes;
    }
  }

  async #look(): Promise<number> {
    this.#lastBytes = await this.#ask(this.#backing).catch(() => 0);
    this.#asking = undefined;
    this.#isLate = false;
    return this.#lastBytes;
  }
}
