/**
 * Slots that discards of an image have freed. They go back to the stores, in one message per turn. Those of
 * an area with a journal stay with it and are used again: when the power goes the journal may not say yet that
 * they are free, and only its own replay knows which of two blocks had such a slot last. An area that was
 * refused slots does not ask again: it is given them as they come.
 */
import type { Reactor } from "@blksnap/uring";

/** With those that an area has left when it asks for more, as many as it can take one by one. */
const REUSED_MAX = 32;

export interface FreedSlotsOptions {
  readonly tell: (slots: number[]) => void;
  readonly grant: (slot: number) => void;
  /** Extents that the area can still take, and whether it was refused what it asked for last. */
  readonly area: () => { readonly extentsFree: number; readonly isRefused: boolean } | undefined;
}

export class FreedSlots {
  readonly #reactor: Reactor;
  readonly #options: FreedSlotsOptions;
  readonly #freed: number[] = [];
  readonly #kept: number[] = [];
  #granting = false;

  constructor(reactor: Reactor, options: FreedSlotsOptions) {
    this.#reactor = reactor;
    this.#options = options;
  }

  add(slot: number, isKept: boolean): void {
    if (isKept) {
      this.#kept.push(slot);
      if (this.#options.area()?.isRefused === true) this.reuse(REUSED_MAX);
    } else if (this.#freed.push(slot) === 1) this.#reactor.setTimer(1, () => this.#tellAll());
  }

  /** The engine asks for slots. True: it gets some of those that were kept, in the next turn. */
  reuse(wanted: number): boolean {
    if (this.#kept.length === 0) return false;
    if (this.#granting) return true;
    this.#granting = true;
    this.#reactor.setTimer(1, () => {
      this.#granting = false;
      // The stores' own grants need room too.
      const room = (this.#options.area()?.extentsFree ?? 0) >> 1;
      for (const slot of this.#kept.splice(0, Math.min(wanted, REUSED_MAX, room))) {
        this.#options.grant(slot);
      }
    });
    return true;
  }

  /** Their area has ended. */
  clear(): void {
    this.#freed.length = 0;
    this.#kept.length = 0;
  }

  #tellAll(): void {
    if (this.#freed.length > 0) this.#options.tell(this.#freed.splice(0));
  }
}
