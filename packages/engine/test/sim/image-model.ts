/**
 * What reads of the image may return: a plain model, one value per sector.
 *
 * A sector has one right value, or a set of them while image writes to it are in flight, or after one of these failed
 * or several overlapped. A read that was in flight when the set shrank may still return an earlier value: each such
 * read keeps the additional values that it may see.
 */
import { describe } from "./content.js";
import { Violation } from "./violation.js";

export interface ImageRead {
  first: number;
  count: number;
  also: Map<number, Set<number>>;
}

export class ImageModel {
  private readonly value: Uint32Array;
  private readonly writers: Uint8Array;
  private readonly contested: Uint8Array;
  private readonly sets: Map<number, Set<number>> = new Map();
  private readonly reads: Set<ImageRead> = new Set();

  /** The image at this moment: the content of the original. */
  constructor(original: Uint32Array) {
    this.value = original.slice();
    this.writers = new Uint8Array(original.length);
    this.contested = new Uint8Array(original.length);
  }

  beginRead(first: number, count: number): ImageRead {
    const read = { first, count, also: new Map() };
    this.reads.add(read);
    return read;
  }

  /** Checks what the read returned; `data` null if it failed. */
  endRead(read: ImageRead, data: Uint32Array | null): void {
    this.reads.delete(read);
    if (data === null) return;
    for (let index = 0; index < read.count; index++) {
      const sector = read.first + index;
      const got = data[index];
      const right = this.sets.size === 0 ? undefined : this.sets.get(sector);
      if (right === undefined ? got === this.value[sector] : right.has(got)) continue;
      if (read.also.get(sector)?.has(got)) continue;
      const wanted = right ?? new Set([this.value[sector]]);
      throw new Violation(
        `image sector ${sector} read as ${describe(got)}, ` +
          `expected ${[...wanted].map(describe).join(" or ")}`,
      );
    }
  }

  beginWrite(first: number, count: number, valueAt: (sector: number) => number): void {
    for (let sector = first; sector < first + count; sector++) {
      this.contested[sector] = this.writers[sector] > 0 ? 1 : 0;
      this.writers[sector]++;
      this.candidates(sector).add(valueAt(sector));
    }
  }

  endWrite(first: number, count: number, valueAt: (sector: number) => number, ok: boolean): void {
    for (let sector = first; sector < first + count; sector++) {
      this.writers[sector]--;
      if (!ok) this.contested[sector] = 1;
      if (this.writers[sector] > 0) this.contested[sector] = 1;
      else if (this.contested[sector] === 0) this.settle(sector, valueAt(sector));
    }
  }

  /** The write had no effect. */
  cancelWrite(first: number, count: number, value: number): void {
    for (let sector = first; sector < first + count; sector++) {
      this.writers[sector]--;
      if (this.writers[sector] > 0) this.contested[sector] = 1;
      else if (this.contested[sector] === 0) {
        const set = this.sets.get(sector);
        if (this.value[sector] !== value && set?.size === 2) this.sets.delete(sector);
        else if (set?.size === 1) this.sets.delete(sector);
      }
    }
  }

  private settle(sector: number, value: number): void {
    for (const read of this.reads) {
      if (sector < read.first || sector >= read.first + read.count) continue;
      let also = read.also.get(sector);
      if (also === undefined) {
        also = new Set();
        read.also.set(sector, also);
      }
      for (const before of this.sets.get(sector) ?? [this.value[sector]]) also.add(before);
    }
    this.sets.delete(sector);
    this.value[sector] = value;
  }

  private candidates(sector: number): Set<number> {
    let set = this.sets.get(sector);
    if (set === undefined) {
      set = new Set([this.value[sector]]);
      this.sets.set(sector, set);
    }
    return set;
  }
}
