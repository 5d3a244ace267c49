/** A call of a medium that hangs, and a caller that gives up at once, however long its limit is. */
export class HungCall {
  readonly #limitMs: number;
  readonly #setTimeout = globalThis.setTimeout;
  /** Ends the wait that began last. */
  #giveUp = (): void => undefined;
  #answer = (): void => undefined;

  /** @param limitMs the caller's; its timers of this length are noticed until `restore` */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
    globalThis.setTimeout = ((fire: () => void, ms: number) => {
      if (ms === this.#limitMs) this.#giveUp = fire;
      return this.#setTimeout(fire, ms);
    }) as never;
  }

  restore(): void {
    globalThis.setTimeout = this.#setTimeout;
  }

  /** The call: its caller gives up. Resolves at `answer`. */
  hang(): Promise<void> {
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#giveUp();
    });
  }

  /** The last one. */
  answer(): void {
    this.#answer();
  }
}
