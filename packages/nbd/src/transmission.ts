/**
 * Requests of connections, from the bytes that come in to the pieces that are started.
 *
 * ```
 *   received bytes ──▶ header ──▶ request ──▶ pieces ──▶ reply
 *                         │          ▲ │
 *                         │          │ └─ no slot: waits until one is free
 *                         │       payload of a write, received into its slot
 *                         └──▶ refused: an error, behind its payload
 * ```
 *
 * One slot is reserved for each possible connection, so that clients that do not read their replies, or do not send
 * their payload, keep no other client waiting.
 */
import { UblkOp } from "@blksnap/ublk";
import type { Arena } from "./arena.js";
import { type Connection, Receiving } from "./connection.js";
import type { Outbox } from "./outbox.js";
import { Pieces, type PiecesOwner } from "./pieces.js";
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_BYTES,
  EXTENDED_REQUEST_MAGIC,
  Limit,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  WireError,
} from "./protocol.js";
import { refusal, writes } from "./request-rules.js";
import { RequestTable } from "./request-table.js";
import type { ServedExport } from "./served-export.js";
import { REQUESTS_OF_CONNECTION } from "./settings.js";
import type { SlotQueue } from "./slot-queue.js";
import { FILTER_BYTES_MAX, filterBits } from "./status-filter.js";
import { WaitingLine } from "./waiting-line.js";
import { u64At } from "./wire.js";

/** What transmission needs of the server. */
export interface TransmissionOwner extends PiecesOwner {
  /** Receives at most `bytes` to that address; onReceived() reports its end. */
  receive(connection: Connection, address: number, bytes: number): void;
  /** Receives more bytes, unless a receive is in flight. */
  receiveMore(connection: Connection): void;
  /** Close the connection after sending its replies. */
  leave(connection: Connection): void;
  /** Something of a closing connection has ended. */
  onQuiet(connection: Connection): void;
}

export interface TransmissionParts {
  readonly arena: Arena;
  readonly slots: SlotQueue;
  readonly outbox: Outbox;
  readonly connectionsMax: number;
}

export class Transmission {
  readonly #owner: TransmissionOwner;
  readonly #arena: Arena;
  readonly #slots: SlotQueue;
  readonly #table: RequestTable;
  readonly #pieces: Pieces;
  readonly #waiting: WaitingLine;
  #isPumping = false;

  constructor(owner: TransmissionOwner, parts: TransmissionParts) {
    this.#owner = owner;
    this.#arena = parts.arena;
    this.#slots = parts.slots;
    this.#table = new RequestTable(parts.connectionsMax * REQUESTS_OF_CONNECTION);
    this.#waiting = new WaitingLine(parts.connectionsMax);
    this.#pieces = new Pieces(
      owner,
      parts.arena,
      parts.slots,
      parts.outbox,
      this.#table,
      parts.connectionsMax,
    );
  }

  /** Processes received bytes, as far as there are slots. */
  pump(connection: Connection): void {
    if (this.#isPumping) {
      if (!connection.isClosing) this.#waiting.add(connection);
      this.#pieces.hasFreed = true;
      return;
    }
    this.#isPumping = true;
    try {
      this.#advance(connection);
      // The loop ends when a round has freed nothing.
      while (this.#pieces.hasFreed) {
        this.#pieces.hasFreed = false;
        // A waiter may leave the line meanwhile, as its connection closes: a target may complete others as one
        // begins.
        for (let left = this.#waiting.length; left > 0 && this.#waiting.length > 0; left--) {
          const waiter = this.#owner.connectionAt(this.#waiting.shift());
          waiter.isWaiting = false;
          this.#advance(waiter);
        }
      }
    } finally {
      this.#isPumping = false;
    }
  }

  /** The end of a receive, with its purpose. */
  onReceived(connection: Connection, receiving: number, bytes: number): void {
    if (receiving === Receiving.PAYLOAD) connection.payloadHave += bytes;
    else connection.end += bytes;
    this.pump(connection);
  }

  /** A target has answered. */
  onSlot(slot: number, result: number): void {
    const connection = this.#pieces.connectionOf(slot);
    this.#pieces.end(connection, slot, result);
    if (connection.isClosing) this.#owner.onQuiet(connection);
    this.pump(connection);
  }

  onSent(connection: Connection, item: number): void {
    this.#pieces.onSent(connection, item);
  }

  /** The connection is closing: gives up what neither the kernel nor targets hold. */
  abandon(connection: Connection): void {
    this.#waiting.remove(connection);
    const { request, discardRequest } = connection;
    connection.request = -1;
    connection.discardRequest = -1;
    if (discardRequest >= 0) this.#pieces.finish(connection, discardRequest, 0);
    if (request < 0) return;
    this.#pieces.abandon(request);
    // If pieces are in flight, it ends with them.
    if (this.#table.pieces[request] === 0) this.#pieces.finish(connection, request, 0);
  }

  /** The receive of a payload has ended: nothing writes into its slot any more. */
  dropPayload(connection: Connection): void {
    const slot = connection.payloadSlot;
    connection.payloadSlot = -1;
    if (slot >= 0) this.#pieces.dropPayload(connection, slot);
  }

  #advance(connection: Connection): void {
    while (!connection.isClosing) {
      if (connection.payloadSlot >= 0) {
        if (!this.#takePayload(connection)) return;
      } else if (connection.discardRequest >= 0) {
        if (!this.#discard(connection)) return;
      } else if (connection.request >= 0) {
        if (!this.#startNext(connection)) return;
      } else {
        if (connection.isLeaving || connection.requests >= REQUESTS_OF_CONNECTION) return;
        if (connection.end - connection.start < this.#requestBytes(connection)) {
          this.#owner.receiveMore(connection);
          return;
        }
        this.#parse(connection);
      }
    }
  }

  /** How many bytes must arrive first: a header, and the contexts of block status. */
  #requestBytes(connection: Connection): number {
    if (!connection.extended) return REQUEST_BYTES;
    if (connection.end - connection.start < EXTENDED_REQUEST_BYTES) return EXTENDED_REQUEST_BYTES;
    const { view } = this.#arena;
    const at = this.#arena.receiveAt(connection.index) + connection.start;
    const hasFilter =
      view.getUint32(at) === EXTENDED_REQUEST_MAGIC &&
      view.getUint16(at + 6) === Command.BLOCK_STATUS &&
      (view.getUint16(at + 4) & CommandFlag.PAYLOAD_LEN) !== 0;
    const length = hasFilter ? u64At(view, at + 24) : 0;
    return EXTENDED_REQUEST_BYTES + (length <= FILTER_BYTES_MAX ? length : 0);
  }

  #parse(connection: Connection): void {
    const { view } = this.#arena;
    const { extended } = connection;
    const at = this.#arena.receiveAt(connection.index) + connection.start;
    connection.start += extended ? EXTENDED_REQUEST_BYTES : REQUEST_BYTES;
    if (view.getUint32(at) !== (extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC)) {
      this.#owner.close(connection);
      return;
    }
    const flags = view.getUint16(at + 4);
    const type = view.getUint16(at + 6);
    if (type === Command.DISCONNECT) {
      connection.isLeaving = true;
      this.#owner.leave(connection);
      return;
    }
    const table = this.#table;
    const request = table.acquire();
    connection.requests++;
    table.connection[request] = connection.index;
    table.cookieHigh[request] = view.getInt32(at + 8);
    table.cookieLow[request] = view.getInt32(at + 12);
    table.type[request] = type;
    table.flags[request] = flags;
    table.offsetBytes[request] = u64At(view, at + 16);
    table.offsetHigh[request] = view.getInt32(at + 16);
    table.offsetLow[request] = view.getInt32(at + 20);
    table.lengthBytes[request] = extended ? u64At(view, at + 24) : view.getUint32(at + 24);
    table.contexts[request] = (1 << connection.contexts.length) - 1;
    table.startedBytes[request] = 0;
    table.pieces[request] = 0;
    if (extended) this.#beginExtended(connection, request);
    else this.#begin(connection, request, type === Command.WRITE);
  }

  /** The flags decide about a payload, whatever the command is. */
  #beginExtended(connection: Connection, request: number): void {
    const table = this.#table;
    const type = table.type[request];
    const hasPayload = (table.flags[request] & CommandFlag.PAYLOAD_LEN) !== 0;
    if (type === Command.WRITE && hasPayload) {
      table.flags[request] &= ~CommandFlag.PAYLOAD_LEN;
      this.#begin(connection, request, true);
    } else if (type === Command.WRITE) this.#refuse(connection, request, WireError.EINVAL, 0);
    else if (type === Command.BLOCK_STATUS && hasPayload) this.#beginFiltered(connection, request);
    else this.#begin(connection, request, hasPayload);
  }

  #beginFiltered(connection: Connection, request: number): void {
    const { view } = this.#arena;
    const table = this.#table;
    const bytes = table.lengthBytes[request];
    const at = this.#arena.receiveAt(connection.index) + connection.start;
    const isWhole = bytes <= FILTER_BYTES_MAX;
    const bits = isWhole ? filterBits(view, at, bytes, connection.contexts.length) : 0;
    if (bits === 0) {
      this.#refuse(connection, request, WireError.EINVAL, bytes);
      return;
    }
    connection.start += bytes;
    table.contexts[request] = bits;
    table.flags[request] &= ~CommandFlag.PAYLOAD_LEN;
    table.lengthBytes[request] = u64At(view, at);
    this.#begin(connection, request, false);
  }

  #begin(connection: Connection, request: number, hasPayload: boolean): void {
    const table = this.#table;
    const length = table.lengthBytes[request];
    const error = this.#errorOf(
      connection,
      table.type[request],
      table.flags[request],
      table.offsetBytes[request],
      length,
    );
    table.error[request] = error;
    if (error === 0) connection.request = request;
    else this.#refuse(connection, request, error, hasPayload ? length : 0);
  }

  /** Its error is sent after its payload has arrived. */
  #refuse(connection: Connection, request: number, error: number, payloadBytes: number): void {
    this.#table.error[request] = error;
    if (payloadBytes === 0) {
      this.#pieces.finish(connection, request, error);
      return;
    }
    connection.discardBytes = payloadBytes;
    connection.discardRequest = request;
    const most = connection.extended ? Limit.PAYLOAD_BYTES : Limit.DISCARD_BYTES;
    if (payloadBytes > most) this.#owner.close(connection);
  }

  #errorOf(
    connection: Connection,
    type: number,
    flags: number,
    offset: number,
    length: number,
  ): number {
    if (connection.readOnly && writes(type)) return WireError.EPERM;
    const served = connection.export as ServedExport;
    const error = refusal(served, type, flags, offset, length, connection.contexts.length);
    if (error !== 0 || type !== Command.READ || (flags & CommandFlag.DF) === 0) return error;
    if (!connection.structured) return WireError.EINVAL;
    // In one piece only if it fits into one slot.
    return length > this.#slots.maxIoBytes ? WireError.EOVERFLOW : 0;
  }

  /** @returns false if it has to wait */
  #startNext(connection: Connection): boolean {
    const { request } = connection;
    const type = this.#table.type[request];
    const served = connection.export as ServedExport;
    const isStable = type === Command.FLUSH && !served.params.volatileCache;
    if (type === Command.CACHE || isStable) {
      connection.request = -1;
      this.#pieces.finish(connection, request, 0);
      return true;
    }
    const length = this.#table.lengthBytes[request];
    const isSerial = this.#isSerial(connection, type, length);
    // Another reply must not interrupt a simple reply of several pieces.
    if (isSerial && (this.#table.pieces[request] > 0 || connection.requests > 1)) return false;
    if (!this.#pieces.mayTake(connection)) {
      this.#waiting.add(connection);
      return false;
    }
    if (type === Command.READ || type === Command.WRITE) {
      this.#startTransfer(connection, request, isSerial);
      return true;
    }
    connection.request = -1;
    const slot = this.#pieces.acquire(connection, request, 0);
    if (type === Command.FLUSH) this.#pieces.startFlush(connection, slot);
    else if (type === Command.BLOCK_STATUS) this.#pieces.answerStatus(connection, slot);
    else this.#pieces.startRange(connection, slot);
    return true;
  }

  #isSerial(connection: Connection, type: number, lengthBytes: number): boolean {
    return type === Command.READ && !connection.structured && lengthBytes > this.#slots.maxIoBytes;
  }

  #startTransfer(connection: Connection, request: number, isSerial: boolean): void {
    const left = this.#table.lengthBytes[request] - this.#table.startedBytes[request];
    const bytes = Math.min(left, this.#slots.maxIoBytes);
    const slot = this.#pieces.acquire(connection, request, bytes);
    if (!isSerial && bytes === left) connection.request = -1;
    if (this.#table.type[request] === Command.READ) {
      this.#pieces.startTransfer(connection, slot, UblkOp.READ);
      return;
    }
    connection.payloadSlot = slot;
    connection.payloadHave = 0;
    connection.payloadWanted = bytes;
  }

  /** @returns false if more has to arrive first */
  #takePayload(connection: Connection): boolean {
    if (connection.receiving !== Receiving.NOTHING) return false;
    const slot = connection.payloadSlot;
    const have = connection.payloadHave;
    const left = connection.payloadWanted - have;
    const count = Math.min(left, connection.end - connection.start);
    if (count > 0) {
      this.#copyPayload(connection, slot, have, count);
      connection.start += count;
      connection.payloadHave += count;
    }
    if (count === left) {
      connection.payloadSlot = -1;
      this.#pieces.startTransfer(connection, slot, UblkOp.WRITE);
      return true;
    }
    const address =
      this.#slots.bufferHigh[slot] * 2 ** 32 +
      (this.#slots.bufferLow[slot] >>> 0) +
      connection.payloadHave;
    connection.receiving = Receiving.PAYLOAD;
    this.#owner.receive(connection, address, left - count);
    return false;
  }

  #copyPayload(connection: Connection, slot: number, to: number, count: number): void {
    const { bytes } = this.#arena;
    const from = this.#arena.receiveAt(connection.index) + connection.start;
    const at = this.#slots.arenaAt(slot);
    if (at >= 0) bytes.copyWithin(at + to, from, from + count);
    else this.#slots.bufferBytes(slot).set(bytes.subarray(from, from + count), to);
  }

  /** @returns false if more has to arrive first */
  #discard(connection: Connection): boolean {
    const count = Math.min(connection.discardBytes, connection.end - connection.start);
    connection.start += count;
    connection.discardBytes -= count;
    if (connection.discardBytes > 0) {
      this.#owner.receiveMore(connection);
      return false;
    }
    const request = connection.discardRequest;
    connection.discardRequest = -1;
    this.#pieces.finish(connection, request, this.#table.error[request]);
    return true;
  }
}
