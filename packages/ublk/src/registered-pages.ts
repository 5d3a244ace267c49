/**
 * Requests of a zero-copy queue: the kernel registers the pages of each in the ring's table of buffers before it
 * delivers the request, and unregisters them at its completion. If it could not, or the file below does not accept
 * these pages, the bytes are copied through memory of this process:
 *
 * ```
 *   request ─▶ pages registered ───────────────────────────────────────▶ target, at offset 0 of its tag's place
 *        └──▶ NEED_REG_BUF, or copyRequest(): WRITE ─▶ read ublkc ─▶ copy ─▶ target
 *                                             READ  ─▶ target ─▶ copy ─▶ write ublkc ─▶ answer
 * ```
 */
import { EIO } from "@blksnap/errors";
import {
  type CompletionHandler,
  high32,
  lockMemory,
  low32,
  MappedMemory,
  prepareRead,
  prepareWrite,
  type Reactor,
} from "@blksnap/uring";
import { AUTO_BUF_REG_FALLBACK, UblkOp, userCopyOffset } from "./abi.js";
import { SecondTries } from "./second-tries.js";
import { NOT_REGISTERED, type RequestQueue } from "./target.js";

/** Called when the bytes of a request have been copied. */
export interface CopyOwner extends RequestQueue {
  readonly queueId: number;
  /** They are in the tag's buffer. @param result 0 or a negative errno */
  onCopiedIn(tag: number, result: number): void;
  /** They are in the request. @param result as onCopiedIn() */
  onCopiedOut(tag: number, result: number): void;
}

/** A slot beyond any table of registered buffers: the kernel then reports that a request needs a copy. */
const NO_PLACE = 0xffff;

export class RegisteredPages implements CompletionHandler {
  readonly #reactor: Reactor;
  readonly #charFd: number;
  readonly #queue: CopyOwner;
  readonly #handlerId: number;
  readonly #places: Int32Array;
  readonly #isCopied: Uint8Array;
  readonly #secondTries: SecondTries;
  /** Pages are allocated when a copy is first needed. */
  readonly #copies: MappedMemory;

  constructor(reactor: Reactor, charFd: number, queue: CopyOwner) {
    const { depth, maxIoBytes } = queue;
    this.#reactor = reactor;
    this.#charFd = charFd;
    this.#queue = queue;
    this.#copies = MappedMemory.anonymous(depth * maxIoBytes);
    // Swapping them in could need a request that waits for this thread, so lock them if permitted.
    lockMemory(this.#copies.address, this.#copies.lengthBytes);
    reactor.noteTaken(() => this.#copies.unmap());
    this.#isCopied = new Uint8Array(depth);
    this.#secondTries = new SecondTries(reactor, depth, (tag) => this.#move(tag));
    this.#places = new Int32Array(depth).fill(NO_PLACE);
    this.#places.set(reactor.takeBufferPlaces(depth));
    this.#handlerId = reactor.addHandler(this);
    for (let tag = 0; tag < depth; tag++) this.#usePages(tag);
  }

  /** Address field of a command that waits for the next request of a tag. */
  registration(tag: number): number {
    return this.#places[tag] | (AUTO_BUF_REG_FALLBACK << 16);
  }

  /** A request has come with its pages registered. */
  begin(tag: number): void {
    if (this.#isCopied[tag] === 1) this.#usePages(tag);
  }

  #usePages(tag: number): void {
    const { bufferIndex, bufferLow, bufferHigh } = this.#queue;
    this.#isCopied[tag] = 0;
    bufferIndex[tag] = this.#places[tag];
    bufferLow[tag] = 0;
    bufferHigh[tag] = 0;
  }

  isCopied(tag: number): boolean {
    return this.#isCopied[tag] === 1;
  }

  /** Gives a request memory of this process, and copies the bytes of a write there; onCopiedIn() follows. */
  copyIn(tag: number): void {
    const { bufferIndex, bufferLow, bufferHigh, maxIoBytes } = this.#queue;
    const address = this.#copies.address + tag * maxIoBytes;
    this.#isCopied[tag] = 1;
    bufferIndex[tag] = NOT_REGISTERED;
    bufferLow[tag] = low32(address);
    bufferHigh[tag] = high32(address);
    this.#secondTries.begin(tag);
    if (this.#queue.op(tag) === UblkOp.WRITE) this.#move(tag);
    else this.#queue.onCopiedIn(tag, 0);
  }

  /** Copies the bytes of a read to the request; onCopiedOut() follows. */
  copyOut(tag: number): void {
    this.#move(tag);
  }

  onCompletion(tag: number, result: number): void {
    if (result < 0 && this.#secondTries.tryAgain(tag, result)) return;
    const queue = this.#queue;
    const status = result === queue.sectors(tag) << 9 ? 0 : result < 0 ? result : -EIO;
    if (queue.op(tag) === UblkOp.WRITE) queue.onCopiedIn(tag, status);
    else queue.onCopiedOut(tag, status);
  }

  /** Every command has returned. */
  close(): void {
    this.#secondTries.close();
    this.#reactor.removeHandler(this.#handlerId);
    this.#reactor.giveBackBufferPlaces(this.#places.filter((place) => place !== NO_PLACE));
    this.#reactor.unmapInSlices(this.#copies);
  }

  /** At the request's offset in the character device; its driver copies, on a kernel thread. */
  #move(tag: number): void {
    const { bufferLow, bufferHigh } = this.#queue;
    const bytes = this.#queue.sectors(tag) << 9;
    const at = userCopyOffset(this.#queue.queueId, tag);
    const [low, high, atLow, atHigh] = [bufferLow[tag], bufferHigh[tag], low32(at), high32(at)];
    const { ring } = this.#reactor;
    const [fd, handler] = [this.#charFd, this.#handlerId];
    if (this.#queue.op(tag) === UblkOp.WRITE)
      prepareRead(ring, fd, low, high, bytes, atLow, atHigh, tag, handler, 0);
    else prepareWrite(ring, fd, low, high, bytes, atLow, atHigh, 0, tag, handler, 0);
  }
}
