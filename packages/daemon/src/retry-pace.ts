/** How soon something that fails is tried again, and when there is something new to say of it. */
export class RetryPace {
  readonly #leastMs: number;
  readonly #mostMs: number;
  #nextMs: number;
  #said: string | undefined;

  constructor(leastMs: number, mostMs: number) {
    this.#leastMs = leastMs;
    this.#mostMs = mostMs;
    this.#nextMs = leastMs;
  }

  /** Each time in a row it is to wait for twice as long. Answers how long, and whether the reason is another. */
  failed(why: string): { readonly delayMs: number; readonly isNews: boolean } {
    const delayMs = this.#nextMs;
    const isNews = why !== this.#said;
    this.#nextMs = Math.min(2 * delayMs, this.#mostMs);
    this.#said = why;
    return { delayMs, isNews };
  }

  succeeded(): void {
    this.#nextMs = this.#leastMs;
    this.#said = undefined;
  }
}
