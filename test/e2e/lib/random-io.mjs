/**
 * Random reads and writes of one device against a model of it in memory.
 *
 * Several requests are in flight at a time. Those of one player never overlap, so that each read has
 * one right answer; what others do to other devices may happen at the same moment.
 */
import { alignedBuffer, DeviceFile, firstDifference } from "./device-file.mjs";

const REQUEST_MAX_BYTES = 2 ** 20;
/** Lengths in sectors: mostly small, around the sizes of pages, blocks and chunks. */
const LENGTHS = [1, 1, 2, 3, 7, 8, 8, 8, 9, 16, 24, 63, 64, 65, 128, 511, 512, 513, 1024, 2048];

export class RandomIo {
  #file;
  #model;
  #random;
  #sectorBytes;
  #inFlight = new Set();
  #operations = 0;
  #name;

  /**
   * @param {{name: string, model: Buffer, random: object, sectorBytes: number}} options
   */
  constructor(file, { name, model, random, sectorBytes }) {
    this.#file = file;
    this.#name = name;
    this.#model = model;
    this.#random = random;
    this.#sectorBytes = sectorBytes;
  }

  static async open(t, path, { direct = true, ...options }) {
    return new RandomIo(await DeviceFile.open(t, path, { direct }), options);
  }

  /** Does that many requests, `depth` at a time; fails at the first wrong byte. */
  async play(requests, depth) {
    const last = this.#operations + requests;
    await Promise.all(Array.from({ length: depth }, () => this.#lane(last)));
  }

  async #lane(last) {
    const memory = alignedBuffer(REQUEST_MAX_BYTES);
    while (this.#operations < last) {
      const number = ++this.#operations;
      const range = this.#freeRange();
      this.#inFlight.add(range);
      const buffer = memory.subarray(0, range.length);
      if (this.#random.below(5) < 3) await this.#write(buffer, range);
      else await this.#check(buffer, range, number);
      this.#inFlight.delete(range);
    }
  }

  async #write(buffer, { offset }) {
    this.#random.fill(buffer);
    await this.#file.write(buffer, offset);
    buffer.copy(this.#model, offset);
  }

  async #check(buffer, { offset, length }, number) {
    await this.#file.readInto(buffer, offset);
    const at = firstDifference(buffer, this.#model.subarray(offset, offset + length));
    if (at < 0) return;
    throw new Error(
      `${this.#name}: request ${number} (${length} bytes at ${offset}) is wrong from byte ${offset + at}`,
    );
  }

  #freeRange() {
    for (;;) {
      const range = this.#anyRange();
      const end = range.offset + range.length;
      const taken = [...this.#inFlight].some(
        (other) => range.offset < other.offset + other.length && other.offset < end,
      );
      if (!taken) return range;
    }
  }

  #anyRange() {
    const sectors = this.#model.length / this.#sectorBytes;
    const wanted = Math.ceil((this.#random.pick(LENGTHS) * 512) / this.#sectorBytes);
    // The last sectors are short of a chunk, and of a block: they are met more often than by chance.
    const first = this.#random.once(12)
      ? Math.max(0, sectors - wanted - this.#random.below(16))
      : this.#random.below(sectors);
    const count = Math.min(wanted, sectors - first);
    return { offset: first * this.#sectorBytes, length: count * this.#sectorBytes };
  }

  /** Ends it, with everything on the device. */
  async close() {
    await this.#file.sync();
    await this.#file.close();
  }
}
