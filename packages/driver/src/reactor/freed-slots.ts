/**
 * Slots that discards of an image have freed. They go back to the stores, in one message per turn. Those of
 * an area with a journal stay with it and are used again: when the power goes the journal may not say yet that
 * they are free, and only its own replay knows which of two blocks had such a slot last.
 */
import type { Reactor } from "@blksnap/uring";

/** With those that an area has left when it asks for more, as many as it can take one by one. */
const REUSED_MAX = 32;

export interface FreedSlotsOptions {
  readonly tell: (slots: number[]) => void;
  readonly grant: (slot: number) => void;
}

export class FreedSlots {
  readonly #reactor: Reactor;
  readonly #options: FreedSlotsOptions;
  readonly #freed: number[] = [];
  readonly #kept: number[] = [];

  constructor(reactor: Reactor, options: FreedSlotsOptions) {
    this.#reactor = reactor;
    this.#options = options;
  }

  add(slot: number, isKept: boolean): void {
    if (isKept) this.#kept.push(slot);
    else if (this.#freed.push(slot) === 1) this.#reactor.setTimer(1, () => this.#tellAll());
  }

  /** The engine asks for slots. True: it gets some of those that were kept, in the next turn. */
  reuse(wanted: number): boolean {
    if (this.#kept.length === 0) return false;
    this.#reactor.setTimer(1, () => {
      for (const slot of this.#kept.splice(0, Math.min(wanted, REUSED_MAX))) {
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
