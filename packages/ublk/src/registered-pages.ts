/**
 * Requests of a zero-copy queue: the kernel puts the pages of each into the ring's table of registered buffers
 * before it tells of the request, and takes them out when it is answered. Where it could not, or what the request
 * is passed on to does not take these pages, the bytes are copied through memory of this process:
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

/** What is told when the bytes of a request have been moved. */
export interface CopyOwner extends RequestQueue {
  readonly queueId: number;
  /** They are in the tag's buffer. @param result 0 or a negative errno */
  onCopiedIn(tag: number, result: number): void;
  /** They are in the request. @param result as onCopiedIn() */
  onCopiedOut(tag: number, result: number): void;
}

/** No table of registered buffers has this place: the kernel then says that a request needs a copy. */
const NO_PLACE = 0xffff;

export class RegisteredPages implements CompletionHandler {
  readonly #reactor: Reactor;
  readonly #charFd: number;
  readonly #queue: CopyOwner;
  readonly #handlerId: number;
  readonly #places: Int32Array;
  readonly #isCopied: Uint8Array;
  readonly #secondTries: SecondTries;
  /** Pages come to be when a copy is first needed. */
  readonly #copies: MappedMemory;

  constructor(reactor: Reactor, charFd: number, queue: CopyOwner) {
    const { depth, maxIoBytes } = queue;
    this.#reactor = reactor;
    this.#charFd = charFd;
    this.#queue = queue;
    this.#copies = MappedMemory.anonymous(depth * maxIoBytes);
    // Swapped out they could come back by a request that waits for this thread. Where it is not permitted they may.
    lockMemory(this.#copies.address, this.#copies.lengthBytes);
    reactor.noteTaken(() => this.#copies.unmap());
    this.#isCopied = new Uint8Array(depth);
    this.#secondTries = new SecondTries(reactor, depth, (tag) => this.#move(tag));
    this.#places = new Int32Array(depth).fill(NO_PLACE);
    this.#places.set(reactor.takeBufferPlaces(depth));
    this.#handlerId = reactor.addHandler(this);
    for (let tag = 0; tag < depth; tag++) this.#usePages(tag);
  }

  /** What a command that waits for the next request of a tag has to bring in the entry's address. */
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

  /** Gives a request memory of this process, and brings it the bytes of a write; onCopiedIn() follows. */
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

  /** Takes the bytes of a read to the request; onCopiedOut() follows. */
  copyOut(tag: number): void {
    this.#move(tag);
  }

  onCompletion(tag: number, result: number): void {
    if (result < 0 && this.#secondTries.take(tag, result)) return;
    const queue = this.#queue;
    const status = result === queue.sectors(tag) << 9 ? 0 : result < 0 ? result : -EIO;
    if (queue.op(tag) === UblkOp.WRITE) queue.onCopiedIn(tag, status);
    else queue.onCopiedOut(tag, status);
  }

  /** Every command has come back. */
  close(): void {
    this.#secondTries.close();
    this.#reactor.removeHandler(this.#handlerId);
    this.#reactor.giveBackBufferPlaces(this.#places.filter((place) => place !== NO_PLACE));
    this.#copies.unmap();
  }

  /** At the request's place in the character device; its driver copies, on a thread of the kernel. */
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
