/**
 * Exports and connections that the server ends. It first replies to pending requests, within a time limit; the target
 * of an export is closed when no connection uses it any more.
 *
 * ```
 *   begin ──▶ no more requests ──▶ all are answered ──▶ closed
 *                     └─ a reply is not read, a payload does not come, a target is late: closed all the same
 * ```
 */
import type { Reactor, Timer } from "@blksnap/uring";
import type { Connection } from "./connection.js";
import type { ServedExport } from "./served-export.js";

/** What departures need of the server. */
export interface DeparturesOwner {
  close(connection: Connection): void;
  /** Closes it if no reply is pending. */
  leave(connection: Connection): void;
  onError(error: unknown): void;
}

export class Departures {
  readonly #owner: DeparturesOwner;
  readonly #reactor: Reactor;
  readonly #timeoutMs: number;
  readonly #timers = new Set<Timer>();
  /** Removed exports, until no connection uses them. */
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

  /** Registers a removed export. */
  add(served: ServedExport, onRemoved: () => void): void {
    this.#exports.set(served, onRemoved);
  }

  /** Closes targets without connections. @param connections all connections */
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
