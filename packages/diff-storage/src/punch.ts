import { errnoNameOf, messageOf } from "@blksnap/errors";
import type { DiffStorageEvent } from "./events.js";
import type { StoreSpace } from "./space.js";
import type { Clock } from "./system.js";

/** Freed slots are collected for this long before the first hole of a batch is punched. */
const GATHER_MS = 500;
/** Most slots that one call punches out. */
const PUNCH_SLOTS_MAX = 4096;

/** The parts and settings of the puncher. */
export interface PunchParts {
  readonly spaces: readonly StoreSpace[];
  readonly clock: Clock;
  /** Ready slots to keep; only slots beyond that are returned. */
  readonly keepReadySlots: number;
  readonly emit: (event: DiffStorageEvent) => void;
  /** Slots stopped counting against the limit, or count again. */
  readonly changed: () => void;
}

/**
 * Returns the space of freed slots to the file system, in batches and in the background.
 *
 * It keeps as much as growth would make ready again. A store that refuses is not asked again: its slots are only
 * reused.
 */
export class Puncher {
  #parts: PunchParts;
  #refused = new Set<StoreSpace>();
  #cancelTimer: (() => void) | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(parts: PunchParts) {
    this.#parts = parts;
  }

  /** Call it after slots were freed. */
  check(): void {
    if (this.#stopped || this.#running !== undefined || this.#cancelTimer !== undefined) return;
    if (this.#next() === undefined) return;
    this.#cancelTimer = this.#parts.clock.after(GATHER_MS, () => {
      this.#cancelTimer = undefined;
      this.#running = this.#run().finally(() => {
        this.#running = undefined;
      });
    });
  }

  /** No punch starts after this; one in flight continues. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** Resolves when no punch is in flight. */
  async idle(): Promise<void> {
    await this.#running;
  }

  #excess(): number {
    const ready = this.#parts.spaces.reduce((sum, space) => sum + space.readySlots, 0);
    return ready - this.#parts.keepReadySlots;
  }

  /** The last store first: ready slots should be in the fast one. */
  #next(): StoreSpace | undefined {
    if (this.#excess() <= 0) return undefined;
    return this.#parts.spaces.findLast(
      (space) => space.store.punchable && space.readySlots > 0 && !this.#refused.has(space),
    );
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const space = this.#next();
      if (space === undefined) return;
      const range = space.beginPunch(Math.min(this.#excess(), PUNCH_SLOTS_MAX));
      if (range === undefined) return;
      try {
        await space.store.punch(range.first * space.slotBytes, range.count * space.slotBytes);
        space.endPunch(range, false);
      } catch (error) {
        // After any other error, a part of them may have lost its space: it is preallocated before they are used.
        space.endPunch(range, errnoNameOf(error) === "EOPNOTSUPP");
        this.#refused.add(space);
        this.#parts.emit({
          type: "punch_failed",
          path: space.store.path,
          errnoName: errnoNameOf(error),
          message: messageOf(error),
        });
      }
      this.#parts.changed();
    }
  }
}
