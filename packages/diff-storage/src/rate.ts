/** Time after which an old amount counts 1/e as much as a new one, in milliseconds. */
const DECAY_MS = 60_000;

/** A rate of use in which older amounts count less and less, exponentially. */
export class DecayingRate {
  #perMs = 0;
  #lastMs: number;

  constructor(nowMs: number) {
    this.#lastMs = nowMs;
  }

  /** Notes that `amount` was used at `nowMs`; a negative one takes back what was noted. */
  note(amount: number, nowMs: number): void {
    this.#perMs = Math.max(0, this.#at(nowMs) + amount / DECAY_MS);
    this.#lastMs = nowMs;
  }

  /** Amount per second at `nowMs`. */
  perSecond(nowMs: number): number {
    return this.#at(nowMs) * 1000;
  }

  #at(nowMs: number): number {
    return this.#perMs * Math.exp(-Math.max(0, nowMs - this.#lastMs) / DECAY_MS);
  }
}
