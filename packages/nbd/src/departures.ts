/**
 * Exports and connections that the server ends. What clients have asked for is answered first, for as long as that may
 * take; the target of an export is closed when no connection uses it any more.
 *
 * ```
 *   begin ──▶ no more requests ──▶ all are answered ──▶ closed
 *                     └─ a reply is not read, a payload does not come, a target is late: closed all the same
 * ```
 */
import type { Reactor, Timer } from "@blksnap/uring";
import type { Connection } from "./connection.js";
import type { ServedExport } from "./served-export.js";

/** What departures ask of the server around them. */
export interface DeparturesOwner {
  close(connection: Connection): void;
  /** Closes it, where nothing of it is left to be answered. */
  leave(connection: Connection): void;
  onError(error: unknown): void;
}

export class Departures {
  readonly #owner: DeparturesOwner;
  readonly #reactor: Reactor;
  readonly #timeoutMs: number;
  readonly #timers = new Set<Timer>();
  /** Exports that are taken away, until no connection uses them. */
  readonly #exports = new Map<ServedExport, () => void>();

  constructor(owner: DeparturesOwner, reactor: Reactor, timeoutMs: number) {
    this.#owner = owner;
    this.#reactor = reactor;
    this.#timeoutMs = timeoutMs;
  }

  begin(connections: readonly (Connection | undefined)[]): void {
    const left: Connection[] = [];
    for (const connection of connections) {
      if (connection === undefined || connection.isClosing) continue;
      connection.isLeaving = true;
      if (connection.handshake === undefined) this.#owner.leave(connection);
      else this.#owner.close(connection);
      if (!connection.isClosing) left.push(connection);
    }
    if (left.length === 0) return;
    const timer = this.#reactor.setTimer(this.#timeoutMs, () => {
      this.#timers.delete(timer);
      for (const connection of left) this.#owner.close(connection);
    });
    this.#timers.add(timer);
  }

  /** Notes an export that is taken away. */
  take(served: ServedExport, onRemoved: () => void): void {
    this.#exports.set(served, onRemoved);
  }

  /** Closes the targets that no connection uses any more. @param connections all that there are */
  closeTargets(connections: readonly (Connection | undefined)[]): void {
    for (const [served, onRemoved] of this.#exports) {
      if (connections.some((connection) => connection?.export === served)) continue;
      this.#exports.delete(served);
      try {
        served.target.close();
      } catch (error) {
        this.#owner.onError(error);
      }
      onRemoved();
    }
  }

  /** All connections are closed. */
  end(): void {
    for (const timer of this.#timers) this.#reactor.cancelTimer(timer);
    this.#timers.clear();
  }
}
