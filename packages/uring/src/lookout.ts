/**
 * How a reactor waits. A user who has one request in flight makes the next one as soon as it is answered: to sleep and to be
 * woken takes longer than that. So the reactor first looks for a while whether the kernel has a completion:
 *
 * ```
 *   expect() ─▶ submit ─▶ look ─ found ─▶ take it
 *                           └─ not ─▶ sleep; of the next chances 2 are left out, then 4, … 256, until one is found
 * ```
 *
 * It looks in its own memory, without calls. Without expect(), which is good for one wait, it sleeps at once: disks take
 * longer, and with more in flight a completion is there anyway.
 */
import { availableParallelism } from "node:os";
import type { Ring } from "./ring.js";

/** 90 µs at 2.5 GHz. */
const LOOKS = 20_000;
const MISSES_MAX = 8;

/** Whether there is a processor for a reactor that does not sleep at once. */
export function canLookOut(): boolean {
  return availableParallelism() > 1;
}

export class Lookout {
  readonly #isAwake: boolean;
  #isExpecting = false;
  /** In a row. */
  #misses = 0;
  /** Chances that are still left out. */
  #leftOut = 0;

  /** @param isAwake false: always sleeps at once. True needs SetupFlag.TASKRUN_FLAG */
  constructor(isAwake: boolean) {
    this.#isAwake = isAwake;
  }

  /** The next completion may come soon. */
  expect(isSoon: boolean): void {
    this.#isExpecting = isSoon;
  }

  /** Submits what is prepared, and waits for a completion. @throws as Ring.submitAndWait() */
  wait(ring: Ring): void {
    const isChance = this.#isAwake && this.#isExpecting;
    this.#isExpecting = false;
    if (isChance && this.#leftOut > 0) this.#leftOut--;
    else if (isChance) {
      this.#note(ring.submitAndLook(LOOKS));
      if (ring.ready() > 0) return;
    }
    ring.submitAndWait(1);
  }

  #note(isFound: boolean): void {
    this.#misses = isFound ? 0 : Math.min(this.#misses + 1, MISSES_MAX);
    this.#leftOut = isFound ? 0 : 2 ** this.#misses;
  }
}
