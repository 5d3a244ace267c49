/**
 * Signals that end the daemon. A signal during the start of devices is deferred until the daemon can handle it: to
 * die in the middle would leave their users waiting.
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
    // Closing a terminal is no request to end a daemon that serves mounted file systems.
    process.on("SIGHUP", () => undefined);
  }

  /** Every signal from now on, and a deferred one. */
  handle(handler: (signal: NodeJS.Signals) => void): void {
    this.#onSignal = handler;
    if (this.#kept !== undefined) handler(this.#kept);
    this.#kept = undefined;
  }

  /** From now on signals kill the process. */
  release(): void {
    for (const name of NAMES) process.off(name, this.#listener);
  }
}
