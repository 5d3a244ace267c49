/**
 * Pieces of requests: each has a slot and works in the target, and its end leads to the reply.
 *
 * ```
 *   read    piece ──▶ data behind its header, the last with DONE ──▶ sent: slot and request are free
 *   write   piece ──▶ slot is free; the last: flush where FUA asks for one ──▶ reply
 *   trim    one slot for all parts, one behind the other; then as a write
 * ```
 */
import { EIO, EOPNOTSUPP } from "@blksnap/errors";
import { UblkIoFlag, UblkOp } from "@blksnap/ublk";
import { high32, low32 } from "@blksnap/uring";
import type { Arena } from "./arena.js";
import { putBlockStatus } from "./block-status.js";
import type { Connection } from "./connection.js";
import { assert } from "./errors.js";
import type { Outbox } from "./outbox.js";
import { CHUNK_DONE, Command, CommandFlag } from "./protocol.js";
import { wireError } from "./request-rules.js";
import type { RequestTable } from "./request-table.js";
import type { ServedExport } from "./served-export.js";
import type { SlotQueue } from "./slot-queue.js";
import { ReplyWriter } from "./wire.js";

const SECTOR_SHIFT = 9;
const SECTOR_BYTES = 512;
/** A trim or zeroes, in one part. */
const RANGE_BYTES_MAX = 1_073_741_824;

/** What pieces need of the server. */
export interface PiecesOwner {
  /** The connection is of no use any more. */
  close(connection: Connection): void;
  onError(error: unknown): void;
  connectionAt(index: number): Connection;
}

export class Pieces {
  /** Slots have become free since the reader last reset it. */
  hasFreed = false;
  readonly #owner: PiecesOwner;
  readonly #arena: Arena;
  readonly #slots: SlotQueue;
  readonly #outbox: Outbox;
  readonly #table: RequestTable;
  readonly #writer = new ReplyWriter();
  readonly #request: Int32Array;
  readonly #bytes: Int32Array;
  readonly #offset: Float64Array;
  /** The request ends when the slot is sent. */
  readonly #isLast: Uint8Array;
  /** The slot's data is written, and is being flushed. */
  readonly #isFlush: Uint8Array;
  /** Zeroes are written as data, because the target has no other way. */
  readonly #isPlain: Uint8Array;
  /** Slots to start, queued because a target may complete at once, which leads to the next start. */
  readonly #toStart: Int32Array;
  #toStartCount = 0;
  readonly #connectionsMax: number;
  /** Connections that have a slot. */
  #holders = 0;
  #isStarting = false;

  constructor(
    owner: PiecesOwner,
    arena: Arena,
    slots: SlotQueue,
    outbox: Outbox,
    table: RequestTable,
    connectionsMax: number,
  ) {
    this.#connectionsMax = connectionsMax;
    this.#owner = owner;
    this.#arena = arena;
    this.#slots = slots;
    this.#outbox = outbox;
    this.#table = table;
    this.#request = new Int32Array(slots.depth);
    this.#bytes = new Int32Array(slots.depth);
    this.#offset = new Float64Array(slots.depth);
    this.#isLast = new Uint8Array(slots.depth);
    this.#isFlush = new Uint8Array(slots.depth);
    this.#isPlain = new Uint8Array(slots.depth);
    this.#toStart = new Int32Array(slots.depth);
  }

  connectionOf(slot: number): Connection {
    return this.#owner.connectionAt(this.#table.connection[this.#request[slot]]);
  }

  /**
   * Whether a connection may have another slot: always its first one, because one is reserved for each connection
   * without any; more while it has fewer than are left otherwise.
   */
  mayTake(connection: Connection): boolean {
    const free = this.#slots.freeSlots;
    const reserved = this.#connectionsMax - this.#holders;
    assert(free >= reserved, "a connection's first slot is gone");
    return connection.slots === 0 || connection.slots < free - reserved;
  }

  /** Assigns a slot to the next `bytes` of a request. */
  acquire(connection: Connection, request: number, bytes: number): number {
    const slot = this.#slots.acquire();
    const table = this.#table;
    if (connection.slots === 0) this.#holders++;
    connection.slots++;
    this.#request[slot] = request;
    this.#bytes[slot] = bytes;
    this.#offset[slot] = table.offsetBytes[request] + table.startedBytes[request];
    this.#isLast[slot] = 0;
    this.#isFlush[slot] = 0;
    this.#isPlain[slot] = 0;
    table.pieces[request]++;
    table.startedBytes[request] += bytes;
    return slot;
  }

  /** Starts the read or write of the slot. */
  startTransfer(connection: Connection, slot: number, op: number): void {
    this.#start(connection, slot, op, op === UblkOp.WRITE ? this.#fuaOf(connection, slot) : 0);
  }

  startFlush(connection: Connection, slot: number): void {
    this.#isFlush[slot] = 1;
    this.#bytes[slot] = 0;
    this.#offset[slot] = 0;
    this.#start(connection, slot, UblkOp.FLUSH, 0);
  }

  /** Starts the next part of a trim or of zeroes, of at most the target's maximum. */
  startRange(connection: Connection, slot: number): void {
    const table = this.#table;
    const request = this.#request[slot];
    const { params, blockBytes } = connection.export as ServedExport;
    const isTrim = table.type[request] === Command.TRIM;
    if (!isTrim && params.writeZeroesMaxBytes === 0) this.#isPlain[slot] = 1;
    const isPlain = this.#isPlain[slot] === 1;
    const most = isTrim ? params.discardMaxBytes : params.writeZeroesMaxBytes;
    const whole = Math.max(most - (most % blockBytes), blockBytes);
    const left = table.lengthBytes[request] - table.startedBytes[request];
    const bytes = Math.min(left, isPlain ? this.#slots.maxIoBytes : whole, RANGE_BYTES_MAX);
    this.#bytes[slot] = bytes;
    this.#offset[slot] = table.offsetBytes[request] + table.startedBytes[request];
    table.startedBytes[request] += bytes;
    if (isPlain) {
      this.#fillZeroes(slot, bytes);
      this.startTransfer(connection, slot, UblkOp.WRITE);
      return;
    }
    const keeps = (table.flags[request] & CommandFlag.NO_HOLE) !== 0 ? UblkIoFlag.NOUNMAP : 0;
    this.#start(connection, slot, isTrim ? UblkOp.DISCARD : UblkOp.WRITE_ZEROES, keeps);
  }

  #fillZeroes(slot: number, bytes: number): void {
    const at = this.#slots.arenaAt(slot);
    if (at >= 0) this.#arena.bytes.fill(0, at, at + bytes);
    else this.#slots.bufferBytes(slot).fill(0, 0, bytes);
  }

  /** Replies to a request for block status, from memory. */
  answerStatus(connection: Connection, slot: number): void {
    const table = this.#table;
    const request = this.#request[slot];
    const at = this.#slots.arenaAt(slot);
    const own = at < 0 ? this.#slots.bufferBytes(slot) : undefined;
    const place = {
      headerView: this.#arena.view,
      headerAt: this.#arena.headerAt(slot),
      view: own === undefined ? this.#arena.view : new DataView(own.buffer),
      dataAt: Math.max(at, 0),
      dataBytes: this.#slots.maxIoBytes,
    };
    this.#writer.to(table, request, connection.extended);
    const bytes = putBlockStatus(
      place,
      this.#writer,
      connection.contexts,
      table.contexts[request],
      table.offsetBytes[request],
      table.lengthBytes[request],
      (table.flags[request] & CommandFlag.REQ_ONE) !== 0,
    );
    table.pieces[request]--;
    this.#isLast[slot] = 1;
    this.#outbox.add(connection, slot, this.#writer.statusHeaderBytes, bytes);
  }

  #fuaOf(connection: Connection, slot: number): number {
    const isFua = (this.#table.flags[this.#request[slot]] & CommandFlag.FUA) !== 0;
    const { params } = connection.export as ServedExport;
    return isFua && params.volatileCache && params.fua ? UblkIoFlag.FUA : 0;
  }

  #start(connection: Connection, slot: number, op: number, flags: number): void {
    const sector = this.#offset[slot] / SECTOR_BYTES;
    const sectors = this.#bytes[slot] >>> SECTOR_SHIFT;
    this.#slots.describe(slot, op, flags, low32(sector), high32(sector), sectors);
    connection.slotsInTarget++;
    this.#toStart[this.#toStartCount++] = slot;
    if (this.#isStarting) return;
    this.#isStarting = true;
    while (this.#toStartCount > 0) this.#lend(this.#toStart[--this.#toStartCount]);
    this.#isStarting = false;
  }

  #lend(slot: number): void {
    const { target } = this.connectionOf(slot).export as ServedExport;
    this.#slots.lend(slot);
    try {
      target.queueIo(slot);
    } catch (error) {
      this.#owner.onError(error);
      if (this.#slots.isLent(slot)) this.#slots.complete(slot, -EIO);
    }
  }

  /** A target has completed. */
  end(connection: Connection, slot: number, result: number): void {
    const table = this.#table;
    const request = this.#request[slot];
    connection.slotsInTarget--;
    table.pieces[request]--;
    if (connection.isClosing) {
      this.abandon(request);
      this.free(connection, slot);
      if (table.pieces[request] === 0) this.#endRequest(connection, request);
      return;
    }
    const type = table.type[request];
    const isData = type === Command.READ || type === Command.WRITE || this.#isPlain[slot] === 1;
    const isTransfer = isData && this.#isFlush[slot] === 0;
    const wanted = isTransfer ? this.#bytes[slot] : 0;
    if (!isTransfer && result === -EOPNOTSUPP && this.#goAnotherWay(connection, slot, request)) {
      return;
    }
    const isGood = isTransfer ? result === wanted : result >= 0;
    if (!isGood && table.error[request] === 0) {
      table.error[request] = result < 0 ? wireError(-result) : EIO;
    }
    if (type === Command.READ) this.#endRead(connection, slot, request);
    else this.#endWrite(connection, slot, request);
  }

  /** An unsupported operation is no error here: a trim is a hint, and zeroes can be written as data. */
  #goAnotherWay(connection: Connection, slot: number, request: number): boolean {
    const table = this.#table;
    if (this.#isFlush[slot] === 1) return false;
    if (table.type[request] === Command.TRIM) {
      this.#endWrite(connection, slot, request);
      return true;
    }
    this.#isPlain[slot] = 1;
    table.startedBytes[request] -= this.#bytes[slot];
    table.pieces[request]++;
    this.startRange(connection, slot);
    return true;
  }

  #endRead(connection: Connection, slot: number, request: number): void {
    const table = this.#table;
    if (table.error[request] === 0) {
      const isLast = table.isOver(request);
      if (isLast && connection.request === request) connection.request = -1;
      this.#isLast[slot] = isLast ? 1 : 0;
      this.#outbox.add(
        connection,
        slot,
        this.#putHeader(connection, slot, request, isLast),
        this.#bytes[slot],
      );
      return;
    }
    const hasBegun = this.#offset[slot] !== table.offsetBytes[request];
    this.free(connection, slot);
    this.abandon(request);
    if (connection.request === request) connection.request = -1;
    // The header of a simple reply was already sent as a success, so the connection must end.
    if (!connection.structured && hasBegun) {
      if (table.pieces[request] === 0) this.#endRequest(connection, request);
      this.#owner.close(connection);
    } else if (table.isOver(request)) this.finish(connection, request, table.error[request]);
  }

  #putHeader(connection: Connection, slot: number, request: number, isLast: boolean): number {
    const { view } = this.#arena;
    const at = this.#arena.headerAt(slot);
    const table = this.#table;
    const offset = this.#offset[slot];
    this.#writer.to(table, request, connection.extended);
    if (!connection.structured) {
      return offset === table.offsetBytes[request] ? this.#writer.simple(view, at, 0) : 0;
    }
    const flags = isLast ? CHUNK_DONE : 0;
    const bytes = this.#bytes[slot];
    return this.#writer.data(view, at, flags, high32(offset), low32(offset), bytes);
  }

  #endWrite(connection: Connection, slot: number, request: number): void {
    const table = this.#table;
    const isGood = table.error[request] === 0;
    const isRange = table.type[request] !== Command.WRITE && this.#isFlush[slot] === 0;
    if (isRange && isGood && !table.isStarted(request)) {
      table.pieces[request]++;
      this.startRange(connection, slot);
      return;
    }
    if (isRange) this.abandon(request);
    const isOver = table.isOver(request);
    if (isOver && isGood && this.#isFlush[slot] === 0 && this.#needsFlush(connection, request)) {
      table.pieces[request]++;
      this.startFlush(connection, slot);
      return;
    }
    this.free(connection, slot);
    if (isOver) this.finish(connection, request, table.error[request]);
  }

  /** If the target has no durable (FUA) writes. */
  #needsFlush(connection: Connection, request: number): boolean {
    const { params } = connection.export as ServedExport;
    const isFua = (this.#table.flags[request] & CommandFlag.FUA) !== 0;
    const isDone = params.fua && this.#table.type[request] === Command.WRITE;
    return isFua && params.volatileCache && !isDone;
  }

  /** Starts no more pieces of it. */
  abandon(request: number): void {
    this.#table.startedBytes[request] = this.#table.lengthBytes[request];
  }

  free(connection: Connection, slot: number): void {
    connection.slots--;
    if (connection.slots === 0) this.#holders--;
    this.#slots.give(slot);
    this.hasFreed = true;
  }

  /** Takes back a slot whose payload will not arrive. */
  dropPayload(connection: Connection, slot: number): void {
    const request = this.#request[slot];
    this.#table.pieces[request]--;
    this.free(connection, slot);
    if (this.#table.pieces[request] === 0) this.#endRequest(connection, request);
  }

  /** The reply to a request that has no data, or has failed. */
  finish(connection: Connection, request: number, error: number): void {
    if (connection.isClosing) {
      this.#endRequest(connection, request);
      return;
    }
    const item = this.#slots.depth + request;
    const at = this.#arena.headerAt(item);
    this.#writer.to(this.#table, request, connection.extended);
    const bytes = connection.structured
      ? this.#writer.end(this.#arena.view, at, error)
      : this.#writer.simple(this.#arena.view, at, error);
    this.#outbox.add(connection, item, bytes, 0);
  }

  /** An item was sent or dropped: frees its slot and request. */
  onSent(connection: Connection, item: number): void {
    const { depth } = this.#slots;
    if (item >= depth) {
      this.#endRequest(connection, item - depth);
      return;
    }
    const request = this.#request[item];
    this.free(connection, item);
    if (this.#isLast[item] === 1) this.#endRequest(connection, request);
  }

  /** Also ends a request without started pieces. */
  #endRequest(connection: Connection, request: number): void {
    assert(connection.requests > 0, "a request ends twice");
    connection.requests--;
    this.#table.give(request);
  }
}
