/**
 * Writes at the edges of chunks, and a check of the sectors around them: a write must change exactly
 * its own sectors, on its own side of the snapshot.
 *
 * ```
 *         chunk n-1          chunk n            chunk n+1
 *   ─────────────────┬─┬───────────────┬─┬────────────────────
 *                    │▓│  first, last  │▓│
 *   ─────────────────┴─┴───────────────┴─┴────────────────────
 * ```
 */
import * as assert from "uvu/assert";
import { SECTOR_BYTES } from "./sector-pattern.mjs";

/** One side, and the number that each of its sectors was written with last. */
class Side {
  disk;
  #name;
  #expected;

  constructor(name, disk, expected) {
    this.#name = name;
    this.disk = disk;
    this.#expected = expected;
  }

  async write(first, count, sequence) {
    await this.disk.write(first, count, sequence);
    this.#expected.fill(sequence, first, first + count);
  }

  async assertAround(from, to) {
    const first = Math.max(0, from);
    const end = Math.min(this.disk.sectors, to);
    const found = await this.disk.sequences(first, end - first);
    for (const [index, sequence] of found.entries()) {
      const sector = first + index;
      const expected = this.#expected[sector];
      if (sequence === expected) continue;
      throw new Error(`${this.#name}: sector ${sector} is of round ${sequence}, not ${expected}`);
    }
  }

  assertAll() {
    return this.assertAround(0, this.disk.sectors);
  }

  /** What the device holds now, as the start of another side. */
  copy() {
    return Uint32Array.from(this.#expected);
  }
}

export class Boundaries {
  #original;
  #image;
  #chunkSectors;
  #blockSectors;
  #sequence;

  /**
   * @param {object} disk a PatternDisk over the front, filled with the round `sequence`
   * @param {{blockBytes: number, chunkBytes: number, sequence: number}} options size of a write, and
   * of the driver's chunks
   */
  constructor(disk, { blockBytes, chunkBytes, sequence }) {
    const filled = new Uint32Array(disk.sectors).fill(sequence);
    this.#original = new Side("original", disk, filled);
    this.#blockSectors = blockBytes / SECTOR_BYTES;
    this.#chunkSectors = chunkBytes / SECTOR_BYTES;
    this.#sequence = sequence;
  }

  /** Chunks of the device; the last one may be short. */
  get chunks() {
    return Math.ceil(this.#original.disk.sectors / this.#chunkSectors);
  }

  /** A snapshot was taken: its image is what the original is now. */
  async snapshotTaken(image) {
    this.#image = new Side("image", image, this.#original.copy());
    await this.#image.assertAll();
  }

  async #step(side, chunk, first, count) {
    await side.write(first, count, ++this.#sequence);
    const [from, to] = [(chunk - 1) * this.#chunkSectors, (chunk + 2) * this.#chunkSectors];
    await this.#original.assertAround(from, to);
    await this.#image.assertAround(from, to);
  }

  #edges(chunk) {
    const first = chunk * this.#chunkSectors;
    const end = Math.min(first + this.#chunkSectors, this.#original.disk.sectors);
    return { first, last: end - this.#blockSectors };
  }

  /** The first and the last block of the chunk, on one side. */
  async #writeEdges(side, chunk) {
    const { first, last } = this.#edges(chunk);
    await this.#step(side, chunk, first, this.#blockSectors);
    await this.#step(side, chunk, last, this.#blockSectors);
  }

  originalEdges(chunk) {
    return this.#writeEdges(this.#original, chunk);
  }

  imageEdges(chunk) {
    return this.#writeEdges(this.#image, chunk);
  }

  /** The last block of the chunk before and the first one of this, in one write. */
  async imageBorder(chunk) {
    assert.ok(chunk > 0, "the first chunk has no chunk before it");
    const first = chunk * this.#chunkSectors - this.#blockSectors;
    await this.#step(this.#image, chunk, first, 2 * this.#blockSectors);
  }

  /** All three kinds, on the chunk. */
  async all(chunk) {
    await this.originalEdges(chunk);
    await this.imageEdges(chunk);
    if (chunk > 0) await this.imageBorder(chunk);
  }

  async assertAll() {
    await this.#original.assertAll();
    await this.#image.assertAll();
  }
}
