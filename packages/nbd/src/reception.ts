/**
 * Accepts connections and does their handshakes, on a thread with an event loop. Another thread may serve the export:
 * it gets the connection when the client has selected one.
 *
 * ```
 *   accept ──▶ handshake ──▶ serve(fd, agreement)
 *      │           └─ too slow, or a broken rule: closed
 *      └─ more than handshakesMax at a time: closed at once
 * ```
 */
import { closeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoName } from "@blksnap/errors";
import {
  high32,
  low32,
  MappedMemory,
  PAGE_BYTES,
  PromiseRing,
  prepareAccept,
  prepareReceive,
  prepareSendMessage,
  type Ring,
} from "@blksnap/uring";
import type { ExportDescription, ExportDirectory } from "./exports.js";
import { type Agreement, Handshake } from "./handshake.js";
import { MESSAGE_BYTES, SEND_FLAGS, writeMessage } from "./message.js";

const ECANCELED = 125;
const EINTR = 4;
const ECONNABORTED = 103;
/** Pause after a failed accept, as without descriptors or memory. */
const RETRY_MS = 1000;
/** Layout: received bytes, a message's header, bytes to send. */
const RECEIVE_BYTES = PAGE_BYTES;
const SEND_BYTES = PAGE_BYTES;
const SEND_AT: number = RECEIVE_BYTES + MESSAGE_BYTES;

export interface ReceptionOptions<Export extends ExportDescription> {
  /**
   * A listening stream socket from listenLocal(), closed with the reception. Without it connections arrive by handle().
   */
  readonly listenFd?: number;
  readonly exports: ExportDirectory<Export>;
  /**
   * Takes over a connection with the bytes after its handshake.
   * @returns false to refuse it: then it is closed here
   */
  readonly serve: (
    fd: number,
    agreement: Agreement<Export>,
    received: Uint8Array,
  ) => Promise<boolean>;
  readonly onError: (error: unknown) => void;
  /** Most concurrent handshakes; further connections are closed on arrival. Default 64. */
  readonly handshakesMax?: number;
  /** Time limit of a handshake. Default 10 s. */
  readonly handshakeTimeoutMs?: number;
}

type Prepare = (ring: Ring, userLow: number, userHigh: number) => void;

export class Reception<Export extends ExportDescription> {
  readonly #options: ReceptionOptions<Export>;
  readonly #ring = new PromiseRing();
  readonly #closing = new AbortController();
  readonly #handshakes = new Set<Promise<void>>();
  readonly #accepting: Promise<void>;

  /** Starts to accept. @throws UringError RING_SETUP_FAILED */
  constructor(options: ReceptionOptions<Export>) {
    this.#options = options;
    const { listenFd } = options;
    this.#accepting =
      listenFd === undefined ? Promise.resolve() : this.#accept(listenFd).catch(options.onError);
  }

  /** Handles a connection, or closes it if there are handshakesMax. @param fd belongs to the reception from now on */
  handle(fd: number): void {
    this.#begin(fd);
  }

  /** Stops accepting, ends pending handshakes, and waits for them. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    await this.#accepting;
    await Promise.all(this.#handshakes);
    if (this.#options.listenFd !== undefined) closeSync(this.#options.listenFd);
    this.#ring.close();
  }

  async #accept(listenFd: number): Promise<void> {
    const { onError } = this.#options;
    const { signal } = this.#closing;
    let told = 0;
    while (!signal.aborted) {
      const prepare: Prepare = (ring, low, high) => prepareAccept(ring, listenFd, low, high);
      const result = await this.#ring.submit(prepare, undefined, signal);
      if (result >= 0) {
        told = 0;
        this.#begin(result);
      } else if (result !== -ECANCELED && result !== -EINTR && result !== -ECONNABORTED) {
        // It may last long, as with too many open files: report it once.
        if (result !== told)
          onError(new Error(`a connection cannot be accepted: ${errnoName(result)}`));
        await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      }
    }
  }

  #begin(fd: number): void {
    const { handshakesMax = 64, onError } = this.#options;
    if (this.#closing.signal.aborted || this.#handshakes.size >= handshakesMax) {
      closeSync(fd);
      return;
    }
    const handshake = this.#receive(fd).catch(onError);
    this.#handshakes.add(handshake);
    void handshake.then(() => this.#handshakes.delete(handshake));
  }

  async #receive(fd: number): Promise<void> {
    let isServed = false;
    let memory: MappedMemory | undefined;
    try {
      memory = MappedMemory.anonymous(RECEIVE_BYTES + SEND_BYTES);
      const { handshakeTimeoutMs = 10_000, exports, serve } = this.#options;
      const late = AbortSignal.timeout(handshakeTimeoutMs);
      const signal = AbortSignal.any([late, this.#closing.signal]);
      const handshake = new Handshake(exports);
      const received = await this.#runHandshake(fd, handshake, memory, signal);
      const { agreement } = handshake;
      if (agreement === undefined || signal.aborted) return;
      isServed = await serve(fd, agreement, received);
    } finally {
      memory?.unmap();
      if (!isServed) closeSync(fd);
    }
  }

  /** Runs the handshake to its end. @returns the bytes received after it */
  async #runHandshake(
    fd: number,
    handshake: Handshake<Export>,
    memory: MappedMemory,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const bytes = new Uint8Array(memory.buffer, 0, RECEIVE_BYTES);
    let start = 0;
    let end = 0;
    for (;;) {
      const out = handshake.replies.drain();
      if (!(await this.#send(fd, out, memory, signal))) handshake.isClosed = true;
      if (handshake.isClosed || handshake.agreement !== undefined) return bytes.slice(start, end);
      if (start === end) {
        start = 0;
        end = await this.#submit((ring, low, high) => {
          const { address } = memory;
          prepareReceive(ring, fd, low32(address), high32(address), RECEIVE_BYTES, 0, low, high);
        }, signal);
        if (end <= 0) {
          handshake.isClosed = true;
          return bytes.slice(0, 0);
        }
      }
      start += handshake.consume(bytes.subarray(start, end));
    }
  }

  /** @returns false if the connection is of no use any more */
  async #send(
    fd: number,
    out: Buffer,
    memory: MappedMemory,
    signal: AbortSignal,
  ): Promise<boolean> {
    const room = memory.lengthBytes - SEND_AT;
    for (let at = 0; at < out.length; ) {
      const bytes = out.subarray(at, at + room);
      new Uint8Array(memory.buffer).set(bytes, SEND_AT);
      const header = writeMessage(memory, RECEIVE_BYTES, SEND_AT, bytes.length);
      const prepare: Prepare = (ring, low, high) =>
        prepareSendMessage(ring, fd, low32(header), high32(header), SEND_FLAGS, low, high);
      const result = await this.#submit(prepare, signal);
      if (result <= 0) return false;
      at += result;
    }
    return true;
  }

  async #submit(prepare: Prepare, signal: AbortSignal): Promise<number> {
    return signal.aborted ? -ECANCELED : await this.#ring.submit(prepare, undefined, signal);
  }
}
