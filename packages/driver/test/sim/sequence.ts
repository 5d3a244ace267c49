/** Sequential writes of a block each, now and then, among random ones. */
import type { Random } from "@blksnap/sim-kernel";
import { DISK_SECTORS } from "./settings.js";

const BLOCK_SECTORS = 8;
const CHUNK_SECTORS = 64;

export class Sequence {
  #at = 0;
  #left = 0;

  /** The range of the next write: the next of the sequence, if there is one, else the random one. */
  next(random: Random, range: [first: number, count: number]): [first: number, count: number] {
    if (this.#left === 0 && random.below(12) === 0) {
      this.#left = 6 + random.below(20);
      this.#at = random.below(DISK_SECTORS / CHUNK_SECTORS) * CHUNK_SECTORS;
    }
    if (this.#left === 0 || random.below(4) === 0) return range;
    const first = this.#at;
    this.#at += BLOCK_SECTORS;
    this.#left = this.#at === DISK_SECTORS ? 0 : this.#left - 1;
    return [first, BLOCK_SECTORS];
  }
}
