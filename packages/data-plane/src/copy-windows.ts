/**
 * The memory that copies go through. A copy of a few blocks, as random writes need it, has a place in memory that
 * the ring knows: the kernel need not look up and pin its pages for the read, and once more for the write. That
 * memory is pinned, so only this little of it is; longer copies, which have more bytes for each look-up, go
 * through memory that comes to be when it is touched.
 *
 * ```
 *   registered   | near 0 | near 1 | … | image 0 | image 1 | …     copies that end within NEAR_BYTES
 *   plain        | far 0          | far 1          | …             all others of the front
 * ```
 *
 * Each tag of the front has a near place and a far one, and a copy finds the same offset in either. Those of an
 * image with blocks so large that two are more than that are plain. What is late keeps its
 * place; its tag gets another, which is not registered.
 */
import { BufferOwner, type TrackerEngine } from "@blksnap/engine";
import { NOT_REGISTERED } from "@blksnap/ublk";
import { MappedMemory, type Reactor } from "@blksnap/uring";
import { IoBuffers } from "./io-buffers.js";

/** What is registered for a tag at most. */
const NEAR_BYTES = 16_384;

export interface CopyWindowsOptions {
  readonly reactor: Reactor;
  readonly engine: TrackerEngine;
  readonly frontDepth: number;
  readonly imageDepth: number;
  readonly frontWindowBytes: number;
  readonly imageWindowBytes: number;
  /** After close(): nothing uses one of the three kinds of windows any more. Called for each of them. */
  readonly onIdle: () => void;
}

/** Kinds of windows: each is idle by itself. */
export const WINDOW_KINDS = 3;

export class CopyWindows {
  readonly #reactor: Reactor;
  readonly #copies: TrackerEngine["copies"];
  readonly #nearBytes: number;
  readonly #isImageNear: boolean;
  readonly #registered: MappedMemory;
  readonly #plain: MappedMemory;
  readonly #registeredIndex: number;
  readonly #near: IoBuffers;
  readonly #far: IoBuffers;
  readonly #image: IoBuffers;
  /** Per copy that is in flight. */
  readonly #windowsOf: IoBuffers[];
  readonly #bufferIndex: Int32Array;

  constructor(options: CopyWindowsOptions) {
    const { reactor, engine, frontDepth, imageDepth, frontWindowBytes, imageWindowBytes } = options;
    this.#reactor = reactor;
    this.#copies = engine.copies;
    this.#nearBytes = Math.min(NEAR_BYTES, frontWindowBytes);
    const nearBytes = frontDepth * this.#nearBytes;
    const farBytes = frontDepth * frontWindowBytes;
    const imageBytes = imageDepth * imageWindowBytes;
    this.#isImageNear = imageWindowBytes <= NEAR_BYTES;
    this.#registered = MappedMemory.anonymous(nearBytes + (this.#isImageNear ? imageBytes : 0));
    this.#plain = MappedMemory.anonymous(farBytes + (this.#isImageNear ? 0 : imageBytes));
    const make = (memory: MappedMemory, at: number, places: number, lengthBytes: number) =>
      new IoBuffers({
        places,
        ids: engine.copies.size,
        lengthBytes,
        address: (place) => memory.address + at + place * lengthBytes,
        onIdle: options.onIdle,
      });
    this.#near = make(this.#registered, 0, frontDepth, this.#nearBytes);
    this.#far = make(this.#plain, 0, frontDepth, frontWindowBytes);
    this.#image = this.#isImageNear
      ? make(this.#registered, nearBytes, imageDepth, imageWindowBytes)
      : make(this.#plain, farBytes, imageDepth, imageWindowBytes);
    this.#windowsOf = new Array<IoBuffers>(engine.copies.size).fill(this.#near);
    this.#bufferIndex = new Int32Array(engine.copies.size);
    this.#registeredIndex = this.#register();
  }

  /** A copy begins that lies at its offset, with its length, in the window of its tag. */
  begin(copy: number): void {
    const { bufferOwner, bufferTag } = this.#copies;
    const tag = bufferTag[copy];
    const windows = bufferOwner[copy] === BufferOwner.FRONT ? this.#frontOf(copy) : this.#image;
    this.#windowsOf[copy] = windows;
    windows.begin(copy, tag);
    const isNear = this.#isNear(windows) && windows.spareOf(tag) === undefined;
    this.#bufferIndex[copy] = isNear ? this.#registeredIndex : NOT_REGISTERED;
  }

  /** Where the bytes of a copy are that has begun. */
  addressOf(copy: number): number {
    return this.#windowsOf[copy].addressOf(copy) + this.#copies.bufferOffsetBytes[copy];
  }

  /** The registered buffer that they lie in, or NOT_REGISTERED. */
  bufferIndexOf(copy: number): number {
    return this.#bufferIndex[copy];
  }

  /** The bytes of a copy that has begun and is not late, for what is rare: it allocates a view. */
  bytesOf(copy: number): Uint8Array {
    const windows = this.#windowsOf[copy];
    const own = this.#isNear(windows) ? this.#registered : this.#plain;
    const { buffer, address } = windows.spareOf(this.#copies.bufferTag[copy]) ?? own;
    const at = this.addressOf(copy) - address;
    return new Uint8Array(buffer, at, this.#copies.lengthBytes[copy]);
  }

  /** The copy has been answered. */
  end(copy: number): void {
    this.#windowsOf[copy].end(copy);
  }

  /** The copy is late: its tag gets another window in place of this one. */
  setLate(copy: number): void {
    this.#windowsOf[copy].replace(this.#copies.bufferTag[copy]);
  }

  /** No more copies begin. */
  close(): void {
    this.#near.close();
    this.#far.close();
    this.#image.close();
  }

  /** When all kinds are idle. */
  unmap(): void {
    if (this.#registeredIndex !== NOT_REGISTERED) this.#reactor.removeBuffer(this.#registeredIndex);
    this.#registered.unmap();
    this.#plain.unmap();
  }

  #isNear(windows: IoBuffers): boolean {
    return windows === this.#near || (windows === this.#image && this.#isImageNear);
  }

  #frontOf(copy: number): IoBuffers {
    const { bufferOffsetBytes, lengthBytes } = this.#copies;
    const isNear = bufferOffsetBytes[copy] + lengthBytes[copy] <= this.#nearBytes;
    return isNear ? this.#near : this.#far;
  }

  /**
   * Copies do without where there is no place or no memory for it. Pages that were never touched are not
   * registered: with them, User Mode Linux 7.3 has transferred other bytes than those that are seen here.
   */
  #register(): number {
    const { address, lengthBytes } = this.#registered;
    if (!this.#registered.populate(0, lengthBytes)) return NOT_REGISTERED;
    try {
      return this.#reactor.addBuffer(address, lengthBytes);
    } catch {
      return NOT_REGISTERED;
    }
  }
}
