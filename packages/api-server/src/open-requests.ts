/** Long requests that must end early: when the client disconnects, and when the daemon stops. */
import type { ServerResponse } from "node:http";

export class OpenRequests {
  readonly #controllers = new Set<AbortController>();
  #closing = false;

  /** Whether the daemon is stopping. */
  get closing(): boolean {
    return this.#closing;
  }

  /** A signal that aborts when the response's connection closes or the daemon stops. */
  signalFor(response: ServerResponse): AbortSignal {
    const controller = new AbortController();
    this.#controllers.add(controller);
    // "close" is emitted exactly once, also after a complete response.
    response.once("close", () => {
      this.#controllers.delete(controller);
      controller.abort();
    });
    if (this.#closing || response.destroyed) controller.abort();
    return controller.signal;
  }

  /** Ends all of them. */
  close(): void {
    this.#closing = true;
    for (const controller of this.#controllers) controller.abort();
  }
}
