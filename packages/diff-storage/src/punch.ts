import { errnoNameOf, messageOf } from "@blksnap/errors";
import type { DiffStorageEvent } from "./events.js";
import type { StoreSpace } from "./space.js";
import type { Clock } from "./system.js";

/** Frees are gathered for this long before the first hole of a batch is punched. */
const GATHER_MS = 500;
/** Slots punched out by one call at most. */
const PUNCH_SLOTS_MAX = 4096;

/** What the puncher works with. */
export interface PunchParts {
  readonly spaces: readonly StoreSpace[];
  readonly clock: Clock;
  /** Ready slots to keep; only more than that is given back. */
  readonly keepReadySlots: number;
  readonly emit: (event: DiffStorageEvent) => void;
  /** Slots stopped counting against the limit, or came back. */
  readonly changed: () => void;
}

/**
 * Gives the space of freed slots back to the file system, in batches and in the background.
 *
 * As much as growth would put ready anyway is kept, so that slots don't travel to and fro. A store
 * that refuses is not asked again: its slots are reused all the same.
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

  /** To be called after slots were freed. */
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

  /** The last store first: what is kept ready should lie in the fast one. */
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
        // With any other error a part of them may have lost its space: it is preallocated before they are used.
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
