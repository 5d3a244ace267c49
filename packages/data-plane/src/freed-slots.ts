/**
 * Slots that discards of an image have freed. They go back to the stores, in one message per turn. Slots of an area
 * with a journal stay with the area and are reused there: after a power cut the journal may not say yet that they are
 * free, and only its own replay knows which of two chunks had such a slot last. An area that was refused slots does not
 * ask again, so it gets them as they are freed. Slots of a store that hangs wait until it answers.
 */
import type { Reactor } from "@blksnap/uring";

/** Together with those that an area has left when it asks for more, as many as it can take one by one. */
const REUSED_MAX = 32;

export interface FreedSlotsOptions {
  readonly report: (slots: number[]) => void;
  readonly grant: (slot: number) => void;
  /** Extents that the area can still take, and whether its last request was refused. */
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

  /** True if unused slots may be recorded as used in a journal: other areas must not get them. */
  get hasKept(): boolean {
    return this.#hasKept;
  }

  add(slot: number, isKept: boolean): void {
    if (isKept) {
      this.#hasKept = true;
      this.#kept.push(slot);
      this.offer();
    } else if (this.#freed.push(slot) === 1) this.#reactor.setTimer(1, () => this.#reportAll());
  }

  /** Gives slots to an area that was refused some. */
  offer(): void {
    if (this.#options.area()?.isRefused === true) this.reuse(REUSED_MAX);
  }

  /**
   * The engine needs slots: grants it some of the kept ones, in the next turn.
   * @param otherwise called if there are none for it, now or then
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

  /** The area has ended. */
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
    // Leave room for grants of the stores.
    const room = (area()?.extentsFree ?? 0) >> 1;
    const slots = this.#popAnswering(Math.min(wanted, REUSED_MAX, room));
    for (const slot of slots) grant(slot);
    // No caller would ask again.
    if (slots.length === 0) otherwise?.();
  }

  /** Removes the first ones that lie in stores that answer. */
  #popAnswering(most: number): number[] {
    const taken: number[] = [];
    for (let i = 0; i < this.#kept.length && taken.length < most; ) {
      if (this.#options.isHung(this.#kept[i])) i++;
      else taken.push(...this.#kept.splice(i, 1));
    }
    return taken;
  }

  #reportAll(): void {
    if (this.#freed.length > 0) this.#options.report(this.#freed.splice(0));
  }
}
