import { FlatBytes, type HeldBytes, SparseBytes } from "./held-bytes.js";
import type { Random } from "./random.js";

const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;
/** Old content of bytes that did not exist. */
const NOTHING = new Uint8Array(0);
/** Chance that a write brings an earlier one to the medium, as a cache does at some time. */
const WRITEBACK_ONE_IN = 24;
/** The way of undoing a page completely. */
const LOSE = 2;

/**
 * Bytes behind a volatile cache. Reads return the last write; a power cut leaves what was flushed, and any part of the
 * rest, sector by sector.
 *
 * For each page written since it last reached the medium, the old content is kept.
 */
export class CachedBytes {
  /** Undefined: in pieces. Only bytes in memory can be shared. */
  readonly #flat: FlatBytes | undefined;
  readonly #held: HeldBytes;
  #sizeBytes: number;
  #durableSizeBytes: number;
  readonly #old = new Map<number, Uint8Array>();
  /** Nothing survives a power cut, so no old content is kept. */
  readonly #isVolatile: boolean;
  readonly #random: Random;

  constructor(sizeBytes: number, isVolatile: boolean, random: Random) {
    this.#flat = isVolatile ? new FlatBytes() : undefined;
    this.#held = this.#flat ?? new SparseBytes();
    this.#held.grow(sizeBytes);
    this.#sizeBytes = sizeBytes;
    this.#durableSizeBytes = sizeBytes;
    this.#isVolatile = isVolatile;
    this.#random = random;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Pages that a power cut may undo. */
  get dirtyPages(): number {
    return this.#old.size;
  }

  /** A copy of what reads return. */
  copy(): Uint8Array {
    return this.#slice(0, this.#sizeBytes);
  }

  /** @returns how many bytes there were */
  read(offsetBytes: number, into: Uint8Array): number {
    const length = Math.max(0, Math.min(into.length, this.#sizeBytes - offsetBytes));
    if (length > 0) this.#held.read(offsetBytes, into.subarray(0, length));
    return length;
  }

  write(offsetBytes: number, from: Uint8Array): void {
    this.#touch(offsetBytes, from.length);
    this.#held.write(offsetBytes, from);
  }

  zero(offsetBytes: number, lengthBytes: number): void {
    const length = Math.min(lengthBytes, this.#sizeBytes - offsetBytes);
    if (length <= 0) return;
    this.#touch(offsetBytes, length);
    this.#held.zero(offsetBytes, offsetBytes + length);
  }

  /** As ftruncate(2). */
  resize(sizeBytes: number): void {
    if (sizeBytes < this.#sizeBytes) this.zero(sizeBytes, this.#sizeBytes - sizeBytes);
    else this.#held.grow(sizeBytes);
    this.#sizeBytes = sizeBytes;
  }

  /** The medium itself has another size: a cut changes nothing about that. */
  resizeForGood(sizeBytes: number): void {
    this.resize(sizeBytes);
    this.#durableSizeBytes = sizeBytes;
  }

  /** Everything written is on the medium. */
  flush(): void {
    this.#old.clear();
    this.#durableSizeBytes = this.#sizeBytes;
  }

  /** Unflushed writes cannot be written back, and their memory is needed: the old content returns. */
  failWriteback(): void {
    for (const [page, old] of this.#old) this.#cutPage(page, old, LOSE);
    this.#old.clear();
  }

  /** The data of a write with DSYNC or FUA is on the medium. */
  flushRange(offsetBytes: number, lengthBytes: number): void {
    const last = Math.floor((offsetBytes + lengthBytes - 1) / PAGE_BYTES);
    for (let page = Math.floor(offsetBytes / PAGE_BYTES); page <= last; page++) {
      this.#old.delete(page);
    }
    this.#durableSizeBytes = Math.max(this.#durableSizeBytes, offsetBytes + lengthBytes);
    this.#durableSizeBytes = Math.min(this.#durableSizeBytes, this.#sizeBytes);
  }

  /** A power cut: unflushed writes are lost, or not. */
  cut(): void {
    // Often all of them, or none.
    const all = this.#random.below(6);
    for (const [page, old] of this.#old) this.#cutPage(page, old, all);
    this.#old.clear();
    if (this.#durableSizeBytes !== this.#sizeBytes && this.#random.oneIn(2)) {
      this.resize(this.#durableSizeBytes);
      this.#old.clear();
    }
    this.#durableSizeBytes = this.#sizeBytes;
  }

  /**
   * The bytes as shared memory: what is written there is in the file at once.
   * @returns undefined if the length differs from the file's
   */
  share(lengthBytes: number): ArrayBuffer | undefined {
    const flat = this.#flat;
    if (flat === undefined || lengthBytes !== this.#sizeBytes) return undefined;
    if (flat.bytes.length !== lengthBytes) flat.bytes = flat.bytes.slice(0, lengthBytes);
    return flat.bytes.buffer as ArrayBuffer;
  }

  /** The process that shared the bytes has died: its later writes are not visible. */
  unshare(): void {
    if (this.#flat !== undefined) this.#flat.bytes = this.#flat.bytes.slice();
  }

  #touch(offsetBytes: number, lengthBytes: number): void {
    const end = offsetBytes + lengthBytes;
    const sizeBefore = this.#sizeBytes;
    if (end > this.#sizeBytes) this.resize(end);
    if (this.#isVolatile || lengthBytes === 0) return;
    if (this.#old.size > 0 && this.#random.oneIn(WRITEBACK_ONE_IN)) {
      const [first] = this.#old.keys();
      this.#old.delete(first);
    }
    const last = Math.floor((end - 1) / PAGE_BYTES);
    for (let page = Math.floor(offsetBytes / PAGE_BYTES); page <= last; page++) {
      if (this.#old.has(page)) continue;
      const start = page * PAGE_BYTES;
      const isNew = start >= sizeBefore;
      this.#old.set(page, isNew ? NOTHING : this.#slice(start, start + PAGE_BYTES));
    }
  }

  #slice(startBytes: number, endBytes: number): Uint8Array {
    const copy = new Uint8Array(endBytes - startBytes);
    this.#held.read(startBytes, copy);
    return copy;
  }

  #cutPage(page: number, old: Uint8Array, all: number): void {
    const start = page * PAGE_BYTES;
    // 0: it stays; 1: in part; 2 and 3: it is lost.
    const way = all === 0 || all === LOSE ? all : this.#random.below(4);
    if (way === 0) return;
    for (let at = start; at < start + PAGE_BYTES; at += SECTOR_BYTES) {
      if (way === 1 && !this.#random.oneIn(2)) continue;
      if (old.length === 0) this.#held.zero(at, at + SECTOR_BYTES);
      else this.#held.write(at, old.subarray(at - start, at - start + SECTOR_BYTES));
    }
  }
}
