import type { Socket } from "node:net";
import { Arrived } from "./arrived.js";
import { silent, withHandshake } from "./client-connect.js";
import type { NegotiatedExport } from "./client-handshake.js";
import { ClientReplies, type Extent, type PendingRequest } from "./client-replies.js";
import { filterPayload, requestHeader } from "./client-requests.js";
import { NbdError } from "./errors.js";
import { Command, CommandFlag, TransmissionFlag } from "./protocol.js";
import { limitSilence } from "./silence.js";
import type { ByteReader } from "./socket-reader.js";
import { type ExportAddress, type NbdServerAddress, parseNbdUri } from "./uri.js";

const NO_BYTES = new Uint8Array(0);
/** Trims and zeroes are split into parts of this size: a server that works on one for long is silent meanwhile. */
const RANGE_BYTES_MAX = 1_073_741_824;
/** Block status, without extended headers. */
const STATUS_BYTES_MAX = 1_073_741_824;
const TIMEOUT_MS = 60_000;

export interface NbdClientOptions {
  /** Contexts for blockStatus(), such as `base:allocation`; those that the server has are selected. */
  readonly contexts?: readonly string[];
  /** Requests in flight; more wait. Default 64. */
  readonly requestsMax?: number;
  /** Use extended headers if the server has them. Default true. */
  readonly extendedHeaders?: boolean;
  /**
   * Give up a server that owes a reply and is silent for this time, in which this process runs: a pause counts as a
   * twelfth at most. Default 60 s.
   */
  readonly timeoutMs?: number;
}

export interface WriteOptions {
  /** The reply comes when the data is durable. */
  readonly fua?: boolean;
}

/** Reads and writes one export of an NBD server; many requests may be in flight. */
export class NbdClient {
  /** The server's description of the export. */
  readonly export: NegotiatedExport;
  /** The contexts that were selected, by their ids. */
  readonly #contexts: ReadonlyMap<number, string>;
  /** Whether extended headers were negotiated: requests and replies have 64-bit lengths. */
  readonly hasExtendedHeaders: boolean;
  readonly #socket: Socket;
  readonly #replies: ClientReplies;
  readonly #requestsMax: number;
  /** Requests that wait until another one ends. */
  readonly #waiting: (() => void)[] = [];
  #onIdle: () => void = () => undefined;
  #cookie = 0n;
  #isGathering = false;
  #inFlight = 0;
  #failure: NbdError | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    socket: Socket,
    reader: ByteReader,
    hasExtendedHeaders: boolean,
    exported: NegotiatedExport,
    contexts: ReadonlyMap<number, string>,
    { requestsMax, timeoutMs }: Required<Pick<NbdClientOptions, "requestsMax" | "timeoutMs">>,
  ) {
    const replies = new ClientReplies(reader, hasExtendedHeaders);
    this.#socket = socket;
    this.#replies = replies;
    this.hasExtendedHeaders = hasExtendedHeaders;
    this.export = exported;
    this.#contexts = contexts;
    this.#requestsMax = requestsMax;
    socket.removeAllListeners("timeout");
    limitSilence(
      socket,
      timeoutMs,
      () => replies.pending.size > 0,
      () => socket.destroy(silent("the server")),
    );
    replies.run().catch((error: unknown) => this.#fail(error as NbdError));
  }

  /**
   * @param address such as `nbd+unix:///NAME?socket=PATH` or `nbds://HOST/NAME?tls-certificates=DIR`
   * @throws NbdError BAD_URI, CERTIFICATES_UNUSABLE, CONNECT_FAILED, EXPORT_UNKNOWN, HANDSHAKE_REFUSED,
   * CONNECTION_LOST, PROTOCOL_VIOLATED, TIMED_OUT
   */
  static connect(
    address: string | ExportAddress,
    options: NbdClientOptions = {},
  ): Promise<NbdClient> {
    const { contexts = [], requestsMax = 64, extendedHeaders = true } = options;
    const { timeoutMs = TIMEOUT_MS } = options;
    const server = typeof address === "string" ? parseNbdUri(address) : address;
    const { exportName } = server;
    return withHandshake(server, timeoutMs, async ({ handshake, socket, reader }) => {
      const isExtended = extendedHeaders && (await handshake.extended());
      const isStructured = isExtended || (await handshake.structured());
      const selected =
        isStructured && contexts.length > 0
          ? await handshake.contexts(exportName, contexts)
          : new Map<number, string>();
      const exported = await handshake.go(exportName);
      const limits = { requestsMax, timeoutMs };
      return new NbdClient(socket, reader, isExtended, exported, selected, limits);
    });
  }

  /**
   * The exports of a server.
   * @param address path of its socket, or another address
   * @throws NbdError as connect()
   */
  static async list(
    address: string | NbdServerAddress,
    { timeoutMs = TIMEOUT_MS }: NbdClientOptions = {},
  ): Promise<{ name: string; description: string }[]> {
    const server = typeof address === "string" ? { socketPath: address } : address;
    return await withHandshake(server, timeoutMs, async ({ handshake, socket }) => {
      const found = await handshake.list();
      handshake.abort();
      socket.destroy();
      return found;
    });
  }

  /** Names of the contexts that an export has. @throws NbdError as connect() */
  static async listContexts(
    address: string | ExportAddress,
    { timeoutMs = TIMEOUT_MS }: NbdClientOptions = {},
  ): Promise<string[]> {
    const server = typeof address === "string" ? parseNbdUri(address) : address;
    const { exportName } = server;
    return await withHandshake(server, timeoutMs, async ({ handshake, socket }) => {
      if (!(await handshake.structured())) return [];
      const found = await handshake.contexts(exportName, []);
      handshake.abort();
      socket.destroy();
      return [...found.values()];
    });
  }

  get sizeBytes(): number {
    return this.export.sizeBytes;
  }

  get readOnly(): boolean {
    return this.#can(TransmissionFlag.READ_ONLY);
  }

  /** Names of the contexts that were selected. */
  get contexts(): string[] {
    return [...this.#contexts.values()];
  }

  #can(flag: number): boolean {
    return (this.export.flags & flag) !== 0;
  }

  /** @throws NbdError OUT_OF_RANGE, REQUEST_FAILED, CONNECTION_LOST */
  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array> {
    this.#checkPayload(lengthBytes);
    const target = new Uint8Array(lengthBytes);
    await this.readInto(offsetBytes, target);
    return target;
  }

  /** Fills `target`, whose content is undefined if this fails. @throws as read() */
  async readInto(offsetBytes: number, target: Uint8Array): Promise<void> {
    this.#checkPayload(target.length);
    if (target.length === 0) return;
    await this.#request(Command.READ, 0, offsetBytes, target.length, NO_BYTES, target);
  }

  /** @param bytes must not change until the write has ended @throws as read() */
  async write(offsetBytes: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    this.#checkPayload(bytes.length);
    if (bytes.length === 0) return;
    const flags = options.fua === true ? CommandFlag.FUA : 0;
    await this.#request(Command.WRITE, flags, offsetBytes, bytes.length, bytes);
  }

  /** Writes whose replies came before are durable when this has ended. */
  async flush(): Promise<void> {
    if (!this.#can(TransmissionFlag.SEND_FLUSH)) return;
    await this.#request(Command.FLUSH, 0, 0, 0);
  }

  /** Discards the range. Does nothing if the server has no trim. */
  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    if (!this.#can(TransmissionFlag.SEND_TRIM)) return;
    await this.#ranges(Command.TRIM, 0, offsetBytes, lengthBytes);
  }

  /**
   * Zeroes the range; its space is freed if the server can, unless it is to be kept.
   * @throws NbdError NOT_NEGOTIATED if the server cannot; others as read()
   */
  async writeZeroes(
    offsetBytes: number,
    lengthBytes: number,
    options: WriteOptions & { readonly keepsRoom?: boolean } = {},
  ): Promise<void> {
    if (!this.#can(TransmissionFlag.SEND_WRITE_ZEROES)) {
      throw new NbdError("NOT_NEGOTIATED", "the server writes no zeroes");
    }
    const fua = options.fua === true ? CommandFlag.FUA : 0;
    const keeps = options.keepsRoom === true ? CommandFlag.NO_HOLE : 0;
    await this.#ranges(Command.WRITE_ZEROES, fua | keeps, offsetBytes, lengthBytes);
  }

  async #ranges(type: number, flags: number, offset: number, length: number): Promise<void> {
    this.#checkRange(offset, length);
    for (let done = 0; done < length; done += RANGE_BYTES_MAX) {
      const part = Math.min(length - done, RANGE_BYTES_MAX);
      await this.#request(type, flags, offset + done, part);
    }
  }

  /**
   * Extents of each selected context, from `offsetBytes` on. They may end before the range does, if the server
   * reports fewer at a time, and each context may end elsewhere.
   * @throws NbdError NOT_NEGOTIATED without a context; others as read()
   */
  async blockStatus(offsetBytes: number, lengthBytes: number): Promise<Map<string, Extent[]>> {
    return await this.#status(offsetBytes, lengthBytes, undefined);
  }

  /** @param only a context, if the others are not needed; the server may send them all the same */
  async #status(
    offsetBytes: number,
    lengthBytes: number,
    only: string | undefined,
  ): Promise<Map<string, Extent[]>> {
    if (this.#contexts.size === 0) {
      throw new NbdError(
        "NOT_NEGOTIATED",
        "no context is selected, or the server has none of them",
      );
    }
    const length = this.hasExtendedHeaders ? lengthBytes : Math.min(lengthBytes, STATUS_BYTES_MAX);
    const ids = [...this.#contexts].filter(([, name]) => name === only).map(([id]) => id);
    const mayFilter = ids.length > 0 && this.#can(TransmissionFlag.BLOCK_STATUS_PAYLOAD);
    const filters = mayFilter && this.hasExtendedHeaders && this.#contexts.size > ids.length;
    const payload = filters ? filterPayload(length, ids) : NO_BYTES;
    const extents = await this.#request(Command.BLOCK_STATUS, 0, offsetBytes, length, payload);
    const named = new Map<string, Extent[]>();
    for (const [id, name] of this.#contexts) named.set(name, extents.get(id) ?? []);
    return named;
  }

  /**
   * All extents of one context in a range: in order, without gaps, adjacent ones with the same flags merged.
   * @throws as blockStatus()
   */
  async *extents(
    context: string,
    fromBytes = 0,
    toBytes: number = this.sizeBytes,
  ): AsyncGenerator<Extent, void, undefined> {
    let last: Extent | undefined;
    for (let at = fromBytes; at < toBytes; ) {
      const found = (await this.#status(at, toBytes - at, context)).get(context);
      if (found === undefined || found.length === 0) {
        throw new NbdError("NOT_NEGOTIATED", `"${context}" is not selected, or has no extents`);
      }
      for (const { lengthBytes, flags } of found) {
        const length = Math.min(lengthBytes, toBytes - at);
        if (length <= 0) break;
        if (last !== undefined && last.flags === flags) {
          last = { ...last, lengthBytes: last.lengthBytes + length };
        } else {
          if (last !== undefined) yield last;
          last = { offsetBytes: at, lengthBytes: length, flags };
        }
        at += length;
      }
    }
    if (last !== undefined) yield last;
  }

  /** Closes the connection when all requests have ended. A second call returns the same promise. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** Ends the connection at once: what is in flight fails, and may still be done. Calling it again does nothing. */
  destroy(): void {
    this.#fail(new NbdError("CONNECTION_LOST", "the connection was closed"));
  }

  async #close(): Promise<void> {
    while (this.#inFlight > 0 || this.#waiting.length > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    const closed = new Promise<void>((resolve) => {
      if (this.#socket.destroyed) resolve();
      else this.#socket.once("close", () => resolve());
    });
    this.#failure ??= new NbdError("CONNECTION_LOST", "the connection was closed");
    const words = { type: Command.DISCONNECT, flags: 0, cookie: 0n };
    const nothing = { offsetBytes: 0, lengthBytes: 0, payloadBytes: 0 };
    const bye = requestHeader({ ...words, ...nothing }, this.hasExtendedHeaders);
    this.#socket.end(bye, () => this.#socket.destroy());
    await closed;
  }

  #checkRange(offsetBytes: number, lengthBytes: number): void {
    const isInside =
      offsetBytes >= 0 && lengthBytes >= 0 && offsetBytes + lengthBytes <= this.sizeBytes;
    if (isInside && Number.isSafeInteger(offsetBytes) && Number.isSafeInteger(lengthBytes)) return;
    const what = `${lengthBytes} bytes at ${offsetBytes} of an export of ${this.sizeBytes}`;
    throw new NbdError("OUT_OF_RANGE", what);
  }

  #checkPayload(lengthBytes: number): void {
    if (lengthBytes <= this.export.maxPayloadBytes) return;
    const most = this.export.maxPayloadBytes;
    throw new NbdError("OUT_OF_RANGE", `${lengthBytes} bytes at a time, and ${most} are allowed`);
  }

  async #request(
    type: number,
    flags: number,
    offsetBytes: number,
    lengthBytes: number,
    payload: Uint8Array = NO_BYTES,
    target: Uint8Array = NO_BYTES,
  ): Promise<Map<number, Extent[]>> {
    this.#checkRange(offsetBytes, lengthBytes);
    while (this.#inFlight >= this.#requestsMax) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#failure !== undefined) throw this.#failure;
    this.#inFlight++;
    try {
      return await this.#exchange(type, flags, offsetBytes, lengthBytes, payload, target);
    } finally {
      this.#inFlight--;
      const next = this.#waiting.shift() ?? this.#onIdle;
      next();
    }
  }

  #exchange(
    type: number,
    flags: number,
    offsetBytes: number,
    lengthBytes: number,
    payload: Uint8Array,
    target: Uint8Array,
  ): Promise<Map<number, Extent[]>> {
    return new Promise((resolve, reject) => {
      const extents = new Map<number, Extent[]>();
      const request: PendingRequest = {
        ...{ type, offsetBytes, lengthBytes, target, extents },
        arrived: new Arrived(),
        error: undefined,
        onEnd: () => (request.error === undefined ? resolve(extents) : reject(request.error)),
      };
      const cookie = this.#cookie++;
      this.#replies.pending.set(cookie, request);
      this.#gather();
      const place = { offsetBytes, lengthBytes, payloadBytes: payload.length };
      const words = { type, flags, cookie, ...place };
      this.#socket.write(requestHeader(words, this.hasExtendedHeaders));
      if (payload.length > 0) this.#socket.write(payload);
    });
  }

  /** Requests of one turn are sent together: a system call costs more than building a request. */
  #gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    this.#socket.cork();
    process.nextTick(() => {
      this.#isGathering = false;
      this.#socket.uncork();
    });
  }

  #fail(error: NbdError): void {
    this.#failure ??= error;
    this.#socket.destroy();
    for (const request of this.#replies.pending.values()) {
      request.error = this.#failure;
      request.onEnd();
    }
    this.#replies.pending.clear();
    for (const wake of this.#waiting.splice(0)) wake();
  }
}
