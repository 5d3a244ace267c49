/**
 * Work that grows with a device is done in turns: after so many units (blocks, chunks or words of a map
 * looked at) the thread does what else there is, and continues then.
 */
import { setImmediate as nextTurn } from "node:timers/promises";

/** Of the main thread, which grants slots. */
export const TURN_UNITS: number = 2 ** 16;
/** Of a reactor, which serves requests. */
export const REACTOR_TURN_UNITS: number = 2 ** 14;

/** Counts the units of a long piece of work on the main thread. */
export class Turns {
  #units = 0;

  /** So many units were done. Undefined, or what is to be awaited before more is done. */
  spend(units: number): Promise<void> | undefined {
    this.#units += units;
    if (this.#units < TURN_UNITS) return undefined;
    this.#units = 0;
    return nextTurn();
  }
}
