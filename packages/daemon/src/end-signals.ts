/**
 * Signals that tell the daemon to end. One that comes while devices are being started is kept until
 * the daemon can judge it: dying in the middle would leave their users waiting.
 */
const NAMES = ["SIGTERM", "SIGINT"] as const;

export class EndSignals {
  #kept: NodeJS.Signals | undefined;
  #onSignal = (signal: NodeJS.Signals): void => {
    this.#kept = signal;
  };
  readonly #listener = (signal: NodeJS.Signals): void => this.#onSignal(signal);

  listen(): void {
    for (const name of NAMES) process.on(name, this.#listener);
    // The end of a terminal is not a wish to end what serves mounted file systems.
    process.on("SIGHUP", () => undefined);
  }

  /** Every signal from now on, and the one that came before. */
  handle(handler: (signal: NodeJS.Signals) => void): void {
    this.#onSignal = handler;
    if (this.#kept !== undefined) handler(this.#kept);
    this.#kept = undefined;
  }

  /** From now on they end the process at once. */
  release(): void {
    for (const name of NAMES) process.off(name, this.#listener);
  }
}
