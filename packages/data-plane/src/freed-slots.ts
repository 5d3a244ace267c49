/**
 * Slots that discards of an image have freed. They go back to the stores, in one message per turn. Those of
 * an area with a journal stay with it and are used again: when the power goes the journal may not say yet that
 * they are free, and only its own replay knows which of two blocks had such a slot last. An area that was
 * refused slots does not ask again: it is given them as they come. Those of a store that hangs wait until it
 * answers.
 */
import type { Reactor } from "@blksnap/uring";

/** With those that an area has left when it asks for more, as many as it can take one by one. */
const REUSED_MAX = 32;

export interface FreedSlotsOptions {
  readonly tell: (slots: number[]) => void;
  readonly grant: (slot: number) => void;
  /** Extents that the area can still take, and whether it was refused what it asked for last. */
  readonly area: () => { readonly extentsFree: number; readonly isRefused: boolean } | undefined;
  /** The slot lies in a store that hangs. */
  readonly isHung: (slot: number) => boolean;
}

export class FreedSlots {
  readonly #reactor: Reactor;
  readonly #options: FreedSlotsOptions;
  readonly #freed: number[] = [];
  readonly #kept: number[] = [];
  #hasKept = false;
  #granting = false;
  #otherwise: (() => void) | undefined;

  constructor(reactor: Reactor, options: FreedSlotsOptions) {
    this.#reactor = reactor;
    this.#options = options;
  }

  /** Slots that a journal has on record as used may wait for a chunk: they are not for other areas. */
  get hasKept(): boolean {
    return this.#hasKept;
  }

  add(slot: number, isKept: boolean): void {
    if (isKept) {
      this.#hasKept = true;
      this.#kept.push(slot);
      this.offer();
    } else if (this.#freed.push(slot) === 1) this.#reactor.setTimer(1, () => this.#tellAll());
  }

  /** Gives an area that was refused what there is for it. */
  offer(): void {
    if (this.#options.area()?.isRefused === true) this.reuse(REUSED_MAX);
  }

  /**
   * The engine needs slots: it gets some of those that were kept, in the next turn.
   * @param otherwise called when there are none for it: now, or then
   */
  reuse(wanted: number, otherwise?: () => void): void {
    if (!this.#kept.some((slot) => !this.#options.isHung(slot))) {
      otherwise?.();
      return;
    }
    this.#otherwise = otherwise ?? this.#otherwise;
    if (this.#granting) return;
    this.#granting = true;
    this.#reactor.setTimer(1, () => this.#grant(wanted));
  }

  /** Their area has ended. */
  clear(): void {
    this.#freed.length = 0;
    this.#kept.length = 0;
    this.#otherwise = undefined;
  }

  #grant(wanted: number): void {
    const { area, grant } = this.#options;
    const otherwise = this.#otherwise;
    this.#granting = false;
    this.#otherwise = undefined;
    // The stores' own grants need room too.
    const room = (area()?.extentsFree ?? 0) >> 1;
    const slots = this.#popAnswering(Math.min(wanted, REUSED_MAX, room));
    for (const slot of slots) grant(slot);
    // Nothing would ask again.
    if (slots.length === 0) otherwise?.();
  }

  /** The first of those in stores that answer. */
  #popAnswering(most: number): number[] {
    const taken: number[] = [];
    for (let i = 0; i < this.#kept.length && taken.length < most; ) {
      if (this.#options.isHung(this.#kept[i])) i++;
      else taken.push(...this.#kept.splice(i, 1));
    }
    return taken;
  }

  #tellAll(): void {
    if (this.#freed.length > 0) this.#options.tell(this.#freed.splice(0));
  }
}
