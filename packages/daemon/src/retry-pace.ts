/** The pace of retries, and when their reason is worth reporting. */
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

  /** Each failure in a row doubles the wait. Returns the wait, and whether the reason is new. */
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
