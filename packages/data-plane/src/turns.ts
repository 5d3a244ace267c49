/**
 * Work that grows with a device is done in turns: after so many units (blocks, chunks or words of a map) the thread
 * does other work, and then continues.
 */
import { setImmediate as nextTurn } from "node:timers/promises";

/** Units per turn of the main thread, which grants slots. */
export const TURN_UNITS: number = 2 ** 16;
/** Units per turn of a reactor, which serves requests. */
export const REACTOR_TURN_UNITS: number = 2 ** 14;

/** Counts the units of long work on the main thread. */
export class Turns {
  #units = 0;

  /** Counts units of work. Returns undefined, or what to await before continuing. */
  spend(units: number): Promise<void> | undefined {
    this.#units += units;
    if (this.#units < TURN_UNITS) return undefined;
    this.#units = 0;
    return nextTurn();
  }
}
