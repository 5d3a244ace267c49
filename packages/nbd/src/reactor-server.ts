/**
 * An NBD server in a reactor: accepts connections, and serves its exports on them.
 *
 * ```
 *   accept ──▶ handshake ──▶ transmission ──▶ shutdown ──▶ nothing in flight ──▶ the descriptor is closed
 *      │
 *      └─ more than connectionsMax: closed at once
 * ```
 *
 * All memory is allocated at construction. Every wait for a client has a bound: a time for the handshake, a number of
 * requests for replies, and for buffers what is left when each other connection has one.
 */
import { closeSync } from "node:fs";
import { errnoName } from "@blksnap/errors";
import type { DeviceParams, RequestQueue, Target } from "@blksnap/ublk";
import {
  enlargeSendBuffer,
  high32,
  low32,
  prepareAccept,
  prepareCancel,
  prepareReceive,
  prepareShutdown,
  type Reactor,
  type Timer,
} from "@blksnap/uring";
import { Arena, RECEIVE_BYTES } from "./arena.js";
import { Connection, Receiving } from "./connection.js";
import { Departures, type DeparturesOwner } from "./departures.js";
import { assert } from "./errors.js";
import { type Agreement, Handshake } from "./handshake.js";
import { Handshakes, type HandshakesOwner } from "./handshakes.js";
import { Outbox } from "./outbox.js";
import type { Adoption, ReactorServerOptions, ServerCounts } from "./reactor-server-options.js";
import { type ExportOptions, ServedExport, ServedExports } from "./served-export.js";
import { arenaSizes, type FullServerSettings, fullSettings } from "./settings.js";
import { SlotQueue } from "./slot-queue.js";
import { Transmission, type TransmissionOwner } from "./transmission.js";

/**
 * A socket holds less than a reply of 256 KiB by default: each would be sent in parts, and wait for its reader in between. The kernel
 * takes twice as much, for its own part of it.
 */
const SEND_BUFFER_BYTES = 512 << 10;
/** Number of sweeps over the connections within the time limit of a handshake. */
const SWEEPS = 4;
const ECONNABORTED = 103;
/** User data of the cancellation of the accept; others have the index of a connection. */
const CANCEL = -1;

export class ReactorServer implements TransmissionOwner, HandshakesOwner, DeparturesOwner {
  readonly counts: ServerCounts = { connections: 0, refused: 0, stalled: 0 };
  readonly #options: ReactorServerOptions;
  readonly #settings: FullServerSettings;
  readonly #exports = new ServedExports();
  readonly #arena: Arena;
  readonly #slots: SlotQueue;
  readonly #outbox: Outbox;
  readonly #transmission: Transmission;
  readonly #handshakes: Handshakes;
  readonly #departures: Departures;
  readonly #connections: (Connection | undefined)[];
  readonly #descriptors: Int32Array;
  readonly #sweepMs: number;
  readonly #handlers: number[] = [];
  readonly #receiveHandler: number;
  readonly #shutdownHandler: number;
  readonly #acceptHandler: number;
  #timer: Timer | undefined;
  #isAccepting = false;
  #isCancelling = false;
  #onEnd: (() => void) | undefined;

  constructor(options: ReactorServerOptions) {
    const settings = fullSettings(options.settings ?? {});
    const { reactor } = options;
    const { connectionsMax, queueDepth, maxIoBytes } = settings;
    const sizes = arenaSizes(settings);
    const { requests } = sizes;
    this.#options = options;
    this.#settings = settings;
    this.#sweepMs = settings.handshakeTimeoutMs / SWEEPS;
    const arena = new Arena(reactor, sizes, options.memory);
    this.#arena = arena;
    arena.register();
    const onSlot = (slot: number, result: number): void => this.#transmission.onSlot(slot, result);
    this.#slots = new SlotQueue(queueDepth, maxIoBytes, arena, onSlot);
    this.#connections = new Array<Connection | undefined>(connectionsMax).fill(undefined);
    this.#descriptors = options.descriptors ?? new Int32Array(1 + connectionsMax);
    assert(this.#descriptors.length > connectionsMax, "there is no room for all descriptors");
    this.#descriptors.fill(-1)[0] = options.listenFd ?? -1;
    this.#acceptHandler = this.#handler((_, result) => this.#onAccept(result));
    this.#receiveHandler = this.#handler((index, result) => this.#onReceive(index, result));
    this.#shutdownHandler = this.#handler((index) => this.#onShutdown(index));
    const sendHandler = this.#handler((index, result) => this.#onSend(index, result));
    this.#outbox = new Outbox(
      reactor,
      arena,
      this.#slots,
      queueDepth + requests,
      sendHandler,
      (connection, item) => this.#transmission.onSent(connection, item),
    );
    this.#handshakes = new Handshakes(this, arena, this.#outbox);
    this.#departures = new Departures(this, reactor, settings.endTimeoutMs);
    this.#transmission = new Transmission(this, {
      arena,
      slots: this.#slots,
      outbox: this.#outbox,
      connectionsMax,
    });
    if (options.listenFd !== undefined) this.#accept(options.listenFd);
  }

  #handler(onCompletion: (data: number, result: number) => void): number {
    const id = this.#options.reactor.addHandler({ onCompletion });
    this.#handlers.push(id);
    return id;
  }

  /** Number of connections. */
  get connections(): number {
    return this.#connections.filter((connection) => connection !== undefined).length;
  }

  /** The queue from which targets of this server's exports get their requests. */
  get queue(): RequestQueue {
    return this.#slots;
  }

  /**
   * Exports a target from now on.
   * @param target created with this server's queue; belongs to the server unless this throws
   * @throws NbdError BAD_EXPORT
   */
  add(options: ExportOptions, params: DeviceParams, target: Target): void {
    this.#exports.add(new ServedExport(options, params, target));
  }

  /**
   * Ends an export with its connections, after replies to their requests, then closes its target. Calls back even if
   * there was none.
   */
  remove(name: string, onRemoved: () => void): void {
    const served = this.#exports.remove(name);
    if (served === undefined) {
      onRemoved();
      return;
    }
    this.#departures.add(served, onRemoved);
    this.#departures.begin(this.#connections.filter((one) => one?.export === served));
    this.#departures.closeTargets(this.#connections);
  }

  /** Ends the server, after replies within endTimeoutMs. Calls back when nothing is in flight any more. */
  stop(onEnd: () => void): void {
    assert(this.#onEnd === undefined, "a server is stopped twice");
    this.#onEnd = onEnd;
    if (this.#isAccepting) {
      this.#isCancelling = true;
      prepareCancel(this.#ring, 0, this.#acceptHandler, CANCEL, this.#shutdownHandler);
    }
    for (const served of [...this.#exports.all()]) {
      this.#exports.remove(served.name);
      this.#departures.add(served, () => undefined);
    }
    this.#departures.begin(this.#connections);
    this.#departures.closeTargets(this.#connections);
    this.#tryEnd();
  }

  get #ring(): Reactor["ring"] {
    return this.#options.reactor.ring;
  }

  #acceptNext(): void {
    const { listenFd } = this.#options;
    if (listenFd !== undefined) this.#accept(listenFd);
  }

  #accept(listenFd: number): void {
    this.#isAccepting = true;
    prepareAccept(this.#ring, listenFd, 0, this.#acceptHandler);
  }

  #onAccept(result: number): void {
    this.#isAccepting = false;
    if (result >= 0) this.#begin(result);
    if (this.#onEnd !== undefined) {
      this.#tryEnd();
      return;
    }
    if (result >= 0 || result === -ECONNABORTED) {
      this.#acceptNext();
      return;
    }
    // Without descriptors or memory: the next sweep retries.
    this.#sweepLater();
    this.#options.onError(new Error(`a connection cannot be accepted: ${errnoName(result)}`));
  }

  #begin(fd: number): void {
    const connection = this.#connect(fd, new Handshake(this.#exports));
    if (connection === undefined) {
      closeSync(fd);
      return;
    }
    this.#sweepLater();
    this.#handshakes.advance(connection);
  }

  /** A new connection; undefined if there are connectionsMax. */
  #connect(fd: number, handshake: Handshake<ServedExport> | undefined): Connection | undefined {
    const index = this.#onEnd === undefined ? this.#connections.indexOf(undefined) : -1;
    if (index < 0) {
      this.counts.refused++;
      return undefined;
    }
    this.counts.connections++;
    enlargeSendBuffer(fd, SEND_BUFFER_BYTES);
    const connection = new Connection(index, fd, handshake);
    this.#connections[index] = connection;
    this.#descriptors[1 + index] = fd;
    return connection;
  }

  /**
   * Serves a connection from the end of its handshake on.
   * @param fd belongs to the server from now on, unless it returns false
   * @returns false if there are connectionsMax, or no such export
   */
  adopt(fd: number, adoption: Adoption): boolean {
    const { exportName, structured, contexts, readOnly = false, received } = adoption;
    const { extended = false } = adoption;
    assert(received.length <= RECEIVE_BYTES, "more was received than there is room for");
    const served = this.#exports.find(exportName);
    if (served === undefined) return false;
    const connection = this.#connect(fd, undefined);
    if (connection === undefined) return false;
    this.#arena.bytes.set(received, this.#arena.receiveAt(connection.index));
    connection.end = received.length;
    connection.readOnly = readOnly;
    this.onAgreement(connection, { export: served, structured, extended, contexts });
    return true;
  }

  onAgreement(connection: Connection, agreement: Agreement<ServedExport>): void {
    connection.export = agreement.export;
    connection.structured = agreement.structured;
    connection.extended = agreement.extended;
    connection.contexts = agreement.contexts;
    // It may have been removed meanwhile.
    if (this.#exports.find(agreement.export.name) !== agreement.export) this.close(connection);
    else this.#transmission.pump(connection);
  }

  receiveMore(connection: Connection): void {
    if (connection.receiving !== Receiving.NOTHING) return;
    const base = this.#arena.receiveAt(connection.index);
    if (connection.start > 0) {
      this.#arena.bytes.copyWithin(base, base + connection.start, base + connection.end);
      connection.end -= connection.start;
      connection.start = 0;
    }
    connection.receiving = Receiving.BYTES;
    const address = this.#arena.address + base + connection.end;
    this.receive(connection, address, RECEIVE_BYTES - connection.end);
  }

  receive(connection: Connection, address: number, bytes: number): void {
    const { index, fd } = connection;
    prepareReceive(
      this.#ring,
      fd,
      low32(address),
      high32(address),
      bytes,
      0,
      index,
      this.#receiveHandler,
    );
  }

  connectionAt(index: number): Connection {
    return this.#connections[index] as Connection;
  }

  onError(error: unknown): void {
    this.#options.onError(error);
  }

  #onReceive(index: number, result: number): void {
    const connection = this.connectionAt(index);
    const { receiving } = connection;
    connection.receiving = Receiving.NOTHING;
    this.#options.reactor.expectRequest(false);
    if (connection.isClosing) {
      this.onQuiet(connection);
      return;
    }
    if (result <= 0) {
      this.#onEof(connection, receiving);
      return;
    }
    if (connection.handshake === undefined) {
      this.#transmission.onReceived(connection, receiving, result);
      return;
    }
    connection.end += result;
    this.#handshakes.advance(connection);
  }

  /** A client that sends no more may still wait for replies. */
  #onEof(connection: Connection, receiving: number): void {
    const isTorn = receiving === Receiving.PAYLOAD || connection.discardRequest >= 0;
    connection.isLeaving = true;
    if (isTorn || connection.handshake !== undefined) this.close(connection);
    else this.leave(connection);
  }

  leave(connection: Connection): void {
    if (connection.isLeaving && connection.requests === 0 && !connection.isSending) {
      this.close(connection);
    }
  }

  #onSend(index: number, result: number): void {
    const connection = this.connectionAt(index);
    const isGood = this.#outbox.onSend(connection, result);
    if (connection.isClosing) {
      this.onQuiet(connection);
      return;
    }
    if (!isGood) {
      this.close(connection);
      return;
    }
    if (connection.isSending) return;
    if (connection.handshake !== undefined) {
      this.#handshakes.advance(connection);
      return;
    }
    this.#outbox.flush(connection);
    this.#transmission.pump(connection);
    // Only if nothing is in flight: the next completion is then a client's next request, not a disk's.
    this.#options.reactor.expectRequest(this.#slots.freeSlots === this.#slots.depth);
    this.leave(connection);
  }

  #sweepLater(): void {
    this.#timer ??= this.#options.reactor.setTimer(this.#sweepMs, () => this.#sweep());
  }

  #sweep(): void {
    this.#timer = undefined;
    if (this.#onEnd !== undefined) return;
    for (const connection of this.#connections) {
      if (connection === undefined || connection.isClosing) continue;
      connection.sweeps++;
      if (!this.#isStalled(connection)) continue;
      this.counts.stalled++;
      this.close(connection);
    }
    if (!this.#isAccepting) this.#acceptNext();
    if (this.#connections.some((connection) => connection !== undefined)) this.#sweepLater();
  }

  #isStalled(connection: Connection): boolean {
    const ageMs = connection.sweeps * this.#sweepMs;
    return connection.handshake !== undefined && ageMs > this.#settings.handshakeTimeoutMs;
  }

  close(connection: Connection): void {
    if (connection.isClosing) return;
    connection.isClosing = true;
    connection.handshakeOut = undefined;
    this.#transmission.abandon(connection);
    prepareShutdown(this.#ring, connection.fd, connection.index, this.#shutdownHandler);
    this.onQuiet(connection);
  }

  #onShutdown(index: number): void {
    if (index === CANCEL) {
      this.#isCancelling = false;
      this.#tryEnd();
      return;
    }
    const connection = this.connectionAt(index);
    connection.isShutDown = true;
    this.onQuiet(connection);
  }

  onQuiet(connection: Connection): void {
    if (connection.receiving !== Receiving.PAYLOAD) this.#transmission.dropPayload(connection);
    if (!connection.isSending) this.#outbox.drop(connection);
    this.#transmission.pump(connection);
    if (!connection.isShutDown || !connection.isQuiet) return;
    assert(connection.slots === 0 && connection.requests === 0, "a connection ends with requests");
    this.#descriptors[1 + connection.index] = -1;
    closeSync(connection.fd);
    this.#connections[connection.index] = undefined;
    this.#departures.closeTargets(this.#connections);
    this.#tryEnd();
  }

  #tryEnd(): void {
    const onEnd = this.#onEnd;
    if (onEnd === undefined || this.#isAccepting || this.#isCancelling) return;
    if (this.#connections.some((connection) => connection !== undefined)) return;
    this.#onEnd = undefined;
    const { reactor } = this.#options;
    if (this.#timer !== undefined) reactor.cancelTimer(this.#timer);
    this.#departures.end();
    const { listenFd } = this.#options;
    for (const id of this.#handlers) reactor.removeHandler(id);
    this.#slots.release();
    this.#descriptors[0] = -1;
    if (listenFd !== undefined) closeSync(listenFd);
    onEnd();
  }
}
