/**
 * Removes files that no daemon may trust any more. If the medium fails, it retries until it succeeds: until then a
 * power cut would bring back stale state.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { REMOVAL_INTERVAL_MS } from "../time-limits.js";
import { noAnswer, type PersistentDirectory } from "./persistent-directory.js";

/** A removal that is repeated until it succeeds. */
export interface Removing {
  /** The first attempt. */
  readonly tried: Promise<void>;
  /** Resolves after success. Rejects with the last error if the directory is given up: it is another daemon's then. */
  readonly done: Promise<void>;
}

export class LastingRemoval {
  readonly #directory: Pick<PersistentDirectory, "isClosed">;
  readonly #intervalMs: number;
  #problem: Error | undefined;

  constructor(
    directory: Pick<PersistentDirectory, "isClosed">,
    intervalMs: number = REMOVAL_INTERVAL_MS,
  ) {
    this.#directory = directory;
    this.#intervalMs = intervalMs;
  }

  /** The last error; undefined before begin() and after success. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  begin(remove: () => Promise<void>): Removing {
    this.#problem = noAnswer();
    const tried = remove();
    return { tried, done: this.#untilDone(tried, remove) };
  }

  /** As begin(), but resolves after success. */
  run(remove: () => Promise<void>): Promise<void> {
    return this.begin(remove).done;
  }

  async #untilDone(first: Promise<void>, remove: () => Promise<void>): Promise<void> {
    for (let attempt = first; ; attempt = remove()) {
      try {
        await attempt;
        this.#problem = undefined;
        return;
      } catch (error) {
        this.#problem = error as Error;
        await sleep(this.#intervalMs, undefined, { ref: false });
        if (this.#directory.isClosed) throw error;
      }
    }
  }
}
