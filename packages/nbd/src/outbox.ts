/**
 * Sends queued items in order, all that are ready with one message.
 *
 * An item is a slot (data that was read) or, from `slots` on, a request (a reply without data). Its header is in the
 * arena; that of a slot is followed by the slot's buffer.
 *
 * ```
 *   add(item) ──▶ queue ──▶ vector of one sendmsg ──▶ the kernel ──▶ owner.onSent(item)
 *                              ▲ as long as the ring was not entered, more is added to it
 * ```
 */
import { high32, low32, MessageFlag, prepareSendMessage, type Reactor } from "@blksnap/uring";
import { type Arena, STAGE_BYTES, VECTOR_ENTRIES, VECTOR_OFFSET } from "./arena.js";
import type { Connection } from "./connection.js";
import type { SlotQueue } from "./slot-queue.js";

const SEND_FLAGS = MessageFlag.NOSIGNAL | MessageFlag.WAITALL;
/** Offsets in a `struct msghdr`. */
const VECTOR_ADDRESS = 16;
const VECTOR_LENGTH = 24;

export class Outbox {
  readonly #reactor: Reactor;
  readonly #arena: Arena;
  readonly #slots: SlotQueue;
  readonly #handlerId: number;
  readonly #onSent: (connection: Connection, item: number) => void;
  readonly #next: Int32Array;
  readonly #headerBytes: Uint8Array;
  readonly #dataBytes: Int32Array;

  constructor(
    reactor: Reactor,
    arena: Arena,
    slots: SlotQueue,
    items: number,
    handlerId: number,
    onSent: (connection: Connection, item: number) => void,
  ) {
    this.#reactor = reactor;
    this.#arena = arena;
    this.#slots = slots;
    this.#handlerId = handlerId;
    this.#onSent = onSent;
    this.#next = new Int32Array(items);
    this.#headerBytes = new Uint8Array(items);
    this.#dataBytes = new Int32Array(items);
  }

  /** Queues an item, which belongs to the outbox until it is reported as sent, or dropped. */
  add(connection: Connection, item: number, headerBytes: number, dataBytes: number): void {
    this.#headerBytes[item] = headerBytes;
    this.#dataBytes[item] = dataBytes;
    this.#next[item] = -1;
    if (connection.queueTail < 0) connection.queueHead = item;
    else this.#next[connection.queueTail] = item;
    connection.queueTail = item;
    this.flush(connection);
  }

  /** Sends what can be sent now. */
  flush(connection: Connection): void {
    if (connection.isClosing) return;
    const isOpen = connection.sendStamp === this.#reactor.ring.enterCalls;
    if (connection.isSending && !isOpen) return;
    const before = connection.vectorEntries;
    if (!connection.isSending) this.#begin(connection);
    while (connection.queueHead >= 0 && connection.vectorEntries + 2 <= VECTOR_ENTRIES) {
      this.#move(connection);
    }
    if (connection.isSending) {
      if (connection.vectorEntries !== before) this.#setLength(connection);
    } else if (connection.vectorEntries > 0) this.#send(connection);
  }

  /** Sends bytes of the handshake. @returns how many */
  stage(connection: Connection, bytes: Buffer, from: number): number {
    const count = Math.min(STAGE_BYTES, bytes.length - from);
    const at = this.#arena.stageAt(connection.index);
    this.#arena.bytes.set(bytes.subarray(from, from + count), at);
    this.#begin(connection);
    const address = this.#arena.address + at;
    this.#put(connection, low32(address), high32(address), count);
    this.#send(connection);
    // Nothing is appended to it: replies begin after the handshake.
    connection.sendStamp = -1;
    return count;
  }

  /** The end of a send. @returns false if the connection is of no use any more */
  onSend(connection: Connection, result: number): boolean {
    connection.isSending = false;
    connection.sendStamp = -1;
    if (result <= 0) return false;
    connection.sendBytes -= result;
    if (connection.sendBytes > 0) {
      this.#skip(connection, result);
      this.#send(connection);
      return true;
    }
    const { sendItems } = connection;
    let item = connection.sendHead;
    connection.sendHead = -1;
    connection.sendItems = 0;
    connection.vectorEntries = 0;
    for (let left = sendItems; left > 0; left--) {
      const next = this.#next[item];
      this.#onSent(connection, item);
      item = next;
    }
    return true;
  }

  /** Takes back all items of a connection without a send in flight. */
  drop(connection: Connection): void {
    let sent = connection.sendHead;
    for (let left = connection.sendItems; left > 0; left--) {
      const next = this.#next[sent];
      this.#onSent(connection, sent);
      sent = next;
    }
    let item = connection.queueHead;
    connection.sendHead = -1;
    connection.sendItems = 0;
    connection.queueHead = -1;
    connection.queueTail = -1;
    while (item >= 0) {
      const next = this.#next[item];
      this.#onSent(connection, item);
      item = next;
    }
  }

  #begin(connection: Connection): void {
    connection.vectorEntries = 0;
    connection.vectorFirst = 0;
    connection.sendBytes = 0;
  }

  /** Moves the first item from the queue to the vector. */
  #move(connection: Connection): void {
    const item = connection.queueHead;
    connection.queueHead = this.#next[item];
    if (connection.queueHead < 0) connection.queueTail = -1;
    if (connection.sendItems === 0) connection.sendHead = item;
    else this.#next[connection.sendTail] = item;
    connection.sendTail = item;
    connection.sendItems++;
    const headerBytes = this.#headerBytes[item];
    if (headerBytes > 0) {
      const address = this.#arena.address + this.#arena.headerAt(item);
      this.#put(connection, low32(address), high32(address), headerBytes);
    }
    const dataBytes = this.#dataBytes[item];
    if (dataBytes > 0) {
      this.#put(connection, this.#slots.bufferLow[item], this.#slots.bufferHigh[item], dataBytes);
    }
  }

  #put(connection: Connection, addressLow: number, addressHigh: number, bytes: number): void {
    const at = this.#arena.sendAt(connection.index) + VECTOR_OFFSET + connection.vectorEntries * 16;
    const { view } = this.#arena;
    view.setInt32(at, addressLow, true);
    view.setInt32(at + 4, addressHigh, true);
    view.setInt32(at + 8, bytes, true);
    view.setInt32(at + 12, 0, true);
    connection.vectorEntries++;
    connection.sendBytes += bytes;
  }

  /** The kernel sent only a part. */
  #skip(connection: Connection, sentBytes: number): void {
    const { view } = this.#arena;
    const vectorAt = this.#arena.sendAt(connection.index) + VECTOR_OFFSET;
    let left = sentBytes;
    for (;;) {
      const at = vectorAt + connection.vectorFirst * 16;
      const bytes = view.getInt32(at + 8, true);
      if (left < bytes) {
        const address = view.getInt32(at + 4, true) * 2 ** 32 + view.getUint32(at, true) + left;
        view.setInt32(at, low32(address), true);
        view.setInt32(at + 4, high32(address), true);
        view.setInt32(at + 8, bytes - left, true);
        return;
      }
      left -= bytes;
      connection.vectorFirst++;
    }
  }

  #setLength(connection: Connection): void {
    const at = this.#arena.sendAt(connection.index);
    const entries = connection.vectorEntries - connection.vectorFirst;
    this.#arena.view.setInt32(at + VECTOR_LENGTH, entries, true);
  }

  #send(connection: Connection): void {
    const at = this.#arena.sendAt(connection.index);
    const vector = this.#arena.address + at + VECTOR_OFFSET + connection.vectorFirst * 16;
    this.#arena.view.setInt32(at + VECTOR_ADDRESS, low32(vector), true);
    this.#arena.view.setInt32(at + VECTOR_ADDRESS + 4, high32(vector), true);
    this.#setLength(connection);
    const { ring } = this.#reactor;
    const address = this.#arena.address + at;
    prepareSendMessage(
      ring,
      connection.fd,
      low32(address),
      high32(address),
      SEND_FLAGS,
      connection.index,
      this.#handlerId,
    );
    connection.isSending = true;
    // Preparing the send may have entered a full ring, but only with earlier requests.
    connection.sendStamp = ring.enterCalls;
  }
}
