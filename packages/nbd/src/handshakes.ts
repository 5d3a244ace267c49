/** Handshakes of connections: replies are sent before more is read. */
import type { Arena } from "./arena.js";
import type { Connection } from "./connection.js";
import { assert } from "./errors.js";
import type { Agreement } from "./handshake.js";
import type { Outbox } from "./outbox.js";
import type { ServedExport } from "./served-export.js";

/** What handshakes need of the server. */
export interface HandshakesOwner {
  close(connection: Connection): void;
  receiveMore(connection: Connection): void;
  onAgreement(connection: Connection, agreement: Agreement<ServedExport>): void;
}

export class Handshakes {
  readonly #owner: HandshakesOwner;
  readonly #arena: Arena;
  readonly #outbox: Outbox;

  constructor(owner: HandshakesOwner, arena: Arena, outbox: Outbox) {
    this.#owner = owner;
    this.#arena = arena;
    this.#outbox = outbox;
  }

  /** Runs until it has to send or to receive, or has ended. */
  advance(connection: Connection): void {
    const { handshake } = connection;
    assert(handshake !== undefined, "a handshake is over");
    const base = this.#arena.receiveAt(connection.index);
    while (!connection.isSending) {
      if (!handshake.replies.isEmpty) {
        connection.handshakeOut = handshake.replies.drain();
        connection.handshakeSent = 0;
      }
      const { handshakeOut, start, end } = connection;
      if (handshakeOut !== undefined) this.#say(connection, handshakeOut);
      else if (handshake.isClosed) {
        this.#owner.close(connection);
        return;
      } else if (handshake.agreement !== undefined) {
        connection.handshake = undefined;
        this.#owner.onAgreement(connection, handshake.agreement);
        return;
      } else if (start === end) {
        this.#owner.receiveMore(connection);
        return;
      } else {
        connection.start += handshake.consume(this.#arena.bytes.subarray(base + start, base + end));
      }
    }
  }

  #say(connection: Connection, bytes: Buffer): void {
    connection.handshakeSent += this.#outbox.stage(connection, bytes, connection.handshakeSent);
    if (connection.handshakeSent === bytes.length) connection.handshakeOut = undefined;
  }
}
