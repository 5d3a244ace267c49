/**
 * The memory that copies go through. For registered memory, the kernel need not look up and pin pages, for the read and
 * again for the write. But it stays pinned, so a tag has only as much of it as random writes need, or as its place in
 * the map has. Longer copies use a shared window (long-windows.ts); if all of those are in use, they go through plain
 * memory, which is allocated when it is touched.
 *
 * ```
 *   registered   | near 0 | near 1 | … | image 0 | image 1 | …     copies that end within NEAR_BYTES
 *   of the map   | place 0 | place 1 | …                           near ones of a map with places: they survive the
 *   process
 *   shared       | long 0         | long 1         | …             others of the front, of up to a long window
 *   plain        | far 0          | far 1          | …             all others of the front
 * ```
 *
 * Each tag of the front has a near window and a far one, and a copy has the same offset in both; in a long window it
 * begins at 0. Windows of an image whose blocks are so large that two exceed NEAR_BYTES are plain. A late copy keeps
 * its window; its tag gets another, which is not registered.
 */
import { BufferOwner, type TrackerEngine } from "@blksnap/engine";
import { NOT_REGISTERED } from "@blksnap/ublk";
import { MappedMemory, type Reactor } from "@blksnap/uring";
import { NEAR_BYTES, type PlacesOfMap } from "./copy-places.js";
import { IoBuffers } from "./io-buffers.js";
import { LONG_WINDOW_BYTES, LongWindows, NO_WINDOW } from "./long-windows.js";

export interface CopyWindowsOptions {
  readonly reactor: Reactor;
  readonly engine: TrackerEngine;
  readonly frontDepth: number;
  readonly imageDepth: number;
  readonly frontWindowBytes: number;
  readonly imageWindowBytes: number;
  /** Near windows in the area's map. */
  readonly places?: PlacesOfMap | undefined;
  /** Called for each of the four kinds of windows, after close(), when nothing uses it any more. */
  readonly onIdle: () => void;
}

/** Kinds of windows; each becomes idle separately. */
export const WINDOW_KINDS = 4;

export class CopyWindows {
  /** Per copy that has begun: the halves of the address of its bytes. */
  readonly addressLow: Int32Array;
  readonly addressHigh: Int32Array;
  readonly #reactor: Reactor;
  readonly #copies: TrackerEngine["copies"];
  readonly #nearBytes: number;
  /** How many tags have a near window. */
  readonly #nearTags: number;
  readonly #isImageNear: boolean;
  readonly #registered: MappedMemory;
  readonly #plain: MappedMemory;
  readonly #registeredIndex: number;
  readonly #places: PlacesOfMap | undefined;
  readonly #placeCount: number;
  readonly #placesIndex: number;
  readonly #near: IoBuffers;
  readonly #far: IoBuffers;
  readonly #image: IoBuffers;
  readonly #long: LongWindows;
  readonly #onIdle: () => void;
  #isLongUser = false;
  /** Copies in flight in long windows. */
  #longBusy = 0;
  #isClosing = false;
  /** Per copy in flight: the kind of its window. */
  readonly #windowsOf: IoBuffers[];
  /** Per copy: its long window, or NO_WINDOW. */
  readonly #longOf: Int32Array;
  readonly #bufferIndex: Int32Array;

  constructor(options: CopyWindowsOptions) {
    const { reactor, engine, imageDepth, frontWindowBytes, imageWindowBytes, places } = options;
    this.#reactor = reactor;
    this.#copies = engine.copies;
    this.#places = places;
    this.#nearBytes = places?.placeBytes ?? Math.min(NEAR_BYTES, frontWindowBytes);
    // A map of an earlier daemon whose front had more tags may have more places.
    const placeCount = places?.count ?? 0;
    this.#placeCount = placeCount;
    const frontDepth = Math.max(options.frontDepth, placeCount);
    // With long places, windows of tags without a place would be as long: too much to be registered.
    this.#nearTags = this.#nearBytes > NEAR_BYTES ? placeCount : frontDepth;
    const nearBytes = (this.#nearTags - placeCount) * this.#nearBytes;
    const farBytes = frontDepth * frontWindowBytes;
    const imageBytes = imageDepth * imageWindowBytes;
    this.#isImageNear = imageWindowBytes <= NEAR_BYTES;
    const registeredBytes = nearBytes + (this.#isImageNear ? imageBytes : 0);
    this.#registered = MappedMemory.anonymous(Math.max(registeredBytes, 1));
    reactor.noteTaken(() => this.#registered.unmap());
    places?.hold();
    reactor.noteTaken(() => places?.release());
    this.#plain = MappedMemory.anonymous(farBytes + (this.#isImageNear ? 0 : imageBytes));
    reactor.noteTaken(() => this.#plain.unmap());
    const make = (memory: MappedMemory, at: number, places: number, lengthBytes: number) =>
      new IoBuffers({
        places,
        ids: engine.copies.size,
        lengthBytes,
        address: (place) => memory.address + at + place * lengthBytes,
        onIdle: options.onIdle,
      });
    this.#near = new IoBuffers({
      places: this.#nearTags,
      ids: engine.copies.size,
      lengthBytes: this.#nearBytes,
      address: (tag) => this.#nearAddress(tag),
      onIdle: options.onIdle,
    });
    this.#far = make(this.#plain, 0, frontDepth, frontWindowBytes);
    this.#image = this.#isImageNear
      ? make(this.#registered, nearBytes, imageDepth, imageWindowBytes)
      : make(this.#plain, farBytes, imageDepth, imageWindowBytes);
    this.addressLow = new Int32Array(engine.copies.size);
    this.addressHigh = new Int32Array(engine.copies.size);
    this.#windowsOf = new Array<IoBuffers>(engine.copies.size).fill(this.#near);
    this.#longOf = new Int32Array(engine.copies.size).fill(NO_WINDOW);
    this.#bufferIndex = new Int32Array(engine.copies.size);
    this.#registeredIndex = this.#registerOwn();
    this.#placesIndex = this.#registerPlaces();
    this.#onIdle = options.onIdle;
    this.#long = LongWindows.of(reactor);
  }

  /** A copy begins, at its offset in the window of its tag. */
  begin(copy: number): void {
    const { bufferOffsetBytes, bufferOwner, bufferTag } = this.#copies;
    const tag = bufferTag[copy];
    const windows = bufferOwner[copy] === BufferOwner.FRONT ? this.#frontOf(copy) : this.#image;
    if (windows === this.#far && this.#beginLong(copy)) return;
    this.#windowsOf[copy] = windows;
    windows.begin(copy, tag);
    windows.storeAddress(copy, bufferOffsetBytes[copy], this.addressLow, this.addressHigh);
    const isNear = this.#isNear(windows) && windows.spareOf(tag) === undefined;
    const near = this.#isPlace(windows, tag) ? this.#placesIndex : this.#registeredIndex;
    this.#bufferIndex[copy] = isNear ? near : NOT_REGISTERED;
  }

  /** Address of the bytes of a copy that has begun. Cold. */
  addressOf(copy: number): number {
    return (this.addressLow[copy] >>> 0) + this.addressHigh[copy] * 4294967296;
  }

  /** Index of the registered buffer of these bytes, or NOT_REGISTERED. */
  bufferIndexOf(copy: number): number {
    return this.#bufferIndex[copy];
  }

  /** The bytes of a copy that has begun and is not late, for rare cases: it allocates a view. */
  bytesOf(copy: number): Uint8Array {
    const long = this.#longOf[copy];
    const length = this.#copies.lengthBytes[copy];
    if (long !== NO_WINDOW) return new Uint8Array(this.#long.memoryOf(long).buffer, 0, length);
    const windows = this.#windowsOf[copy];
    const tag = this.#copies.bufferTag[copy];
    const near = this.#isPlace(windows, tag) ? this.#places?.memory : this.#registered;
    const own = this.#isNear(windows) && near !== undefined ? near : this.#plain;
    const { buffer, address } = windows.spareOf(tag) ?? own;
    const at = this.addressOf(copy) - address;
    return new Uint8Array(buffer, at, length);
  }

  /** The copy has been answered. */
  end(copy: number): void {
    const long = this.#longOf[copy];
    if (long === NO_WINDOW) {
      this.#windowsOf[copy].end(copy);
      return;
    }
    this.#longOf[copy] = NO_WINDOW;
    this.#long.giveBack(long);
    this.#longBusy--;
    if (this.#isClosing && this.#longBusy === 0) this.#onIdle();
  }

  /** The copy is late: its tag gets another window in place of this one, unless the window is a long one. */
  setLate(copy: number): void {
    if (this.#longOf[copy] !== NO_WINDOW) return;
    this.#windowsOf[copy].replace(this.#copies.bufferTag[copy]);
  }

  /** No more copies will begin. */
  close(): void {
    this.#near.close();
    this.#far.close();
    this.#image.close();
    this.#isClosing = true;
    if (this.#longBusy === 0) this.#onIdle();
  }

  /** Call it when all kinds are idle. */
  unmap(): void {
    for (const index of [this.#registeredIndex, this.#placesIndex]) {
      if (index !== NOT_REGISTERED) this.#reactor.removeBuffer(index);
    }
    this.#registered.unmap();
    this.#places?.release();
    this.#reactor.unmapInSlices(this.#plain);
    if (this.#isLongUser) this.#long.leave();
    this.#isLongUser = false;
  }

  #isNear(windows: IoBuffers): boolean {
    return windows === this.#near || (windows === this.#image && this.#isImageNear);
  }

  /** True for near windows of tags that have a place in the map. */
  #isPlace(windows: IoBuffers, tag: number): boolean {
    return windows === this.#near && tag < this.#placeCount;
  }

  #nearAddress(tag: number): number {
    const { count = 0, offsetBytes = 0, memory } = this.#places ?? {};
    if (memory === undefined || tag >= count)
      return this.#registered.address + (tag - count) * this.#nearBytes;
    return memory.address + offsetBytes + tag * this.#nearBytes;
  }

  /** False: no long window is free, or the copy is too long for one. */
  #beginLong(copy: number): boolean {
    if (this.#copies.lengthBytes[copy] > LONG_WINDOW_BYTES) return false;
    if (!this.#isLongUser) this.#long.enter();
    this.#isLongUser = true;
    const long = this.#long.acquire();
    if (long === NO_WINDOW) return false;
    this.#longOf[copy] = long;
    const { address } = this.#long.memoryOf(long);
    this.addressLow[copy] = address | 0;
    this.addressHigh[copy] = (address / 4294967296) | 0;
    this.#bufferIndex[copy] = this.#long.bufferIndexOf(long);
    this.#longBusy++;
    return true;
  }

  #frontOf(copy: number): IoBuffers {
    const { bufferOffsetBytes, bufferTag, lengthBytes } = this.#copies;
    const isShort = bufferOffsetBytes[copy] + lengthBytes[copy] <= this.#nearBytes;
    return isShort && bufferTag[copy] < this.#nearTags ? this.#near : this.#far;
  }

  /**
   * Without room in the ring's table or memory, copies work with NOT_REGISTERED. Pages that were never touched must not
   * be registered: User Mode Linux 7.3 then transfers other bytes than this process sees.
   */
  #registerOwn(): number {
    const { address, lengthBytes } = this.#registered;
    if (!this.#registered.populate(0, lengthBytes)) return NOT_REGISTERED;
    return this.#register(address, lengthBytes);
  }

  #register(address: number, lengthBytes: number): number {
    try {
      return this.#reactor.addBuffer(address, lengthBytes);
    } catch {
      return NOT_REGISTERED;
    }
  }

  #registerPlaces(): number {
    if (this.#places === undefined) return NOT_REGISTERED;
    const { count, placeBytes, offsetBytes, memory, isPopulated } = this.#places;
    const lengthBytes = count * placeBytes;
    if (!isPopulated && !memory.populate(offsetBytes, lengthBytes)) return NOT_REGISTERED;
    return this.#register(memory.address + offsetBytes, lengthBytes);
  }
}
