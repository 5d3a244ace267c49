/**
 * How many blocks of a diff area are lost, and in how many ranges: kept up to date, so that reading it costs nothing,
 * whatever the size of the map.
 *
 * A range begins at a lost block whose predecessor on the device is not lost. A change of blocks [from, to) affects
 * beginnings only in [from, to], so these are counted before and after.
 */
import { BlockState } from "./constants.js";
import type { Geometry } from "./geometry.js";

export interface BlockStates {
  readonly geometry: Geometry;
  /** One of BlockState. */
  stateAt(chunk: number, block: number): number;
}

export class LossCount {
  blocks: number = 0;
  ranges: number = 0;
  /** Differs after each change. */
  version: number = 0;
  private readonly map: BlockStates;

  constructor(map: BlockStates) {
    this.map = map;
  }

  /** Sets the counts of a map that an earlier process has left. */
  reset(blocks: number, ranges: number): void {
    this.blocks = blocks;
    this.ranges = ranges;
    this.version++;
  }

  get bytes(): number {
    const { geometry } = this.map;
    const bytes = this.blocks * geometry.blockBytes;
    const last = geometry.chunkCount - 1;
    const block = geometry.blocksInChunk(last) - 1;
    if (bytes === 0 || !this.isLost(last, block)) return bytes;
    return bytes - ((block + 1) * geometry.blockBytes - geometry.lastChunkBytes);
  }

  /** Blocks [from, to) of the chunk are about to change: subtracts what they count for. */
  before(chunk: number, from: number, to: number): void {
    this.add(chunk, from, to, -1);
  }

  /** They have changed: adds what they count for. */
  after(chunk: number, from: number, to: number): void {
    this.add(chunk, from, to, 1);
    this.version++;
  }

  /** All blocks of chunks [first, end), none of which is lost, are about to be lost. Returns how many. */
  addChunks(first: number, end: number): number {
    const { geometry } = this.map;
    const short = geometry.blocksPerChunk - geometry.blocksInChunk(end - 1);
    const blocks = (end - first) * geometry.blocksPerChunk - short;
    if (!this.isLost(first, -1)) this.ranges++;
    if (end < geometry.chunkCount && this.isLost(end, 0)) this.ranges--;
    this.blocks += blocks;
    this.version++;
    return blocks;
  }

  private add(chunk: number, from: number, to: number, sign: number): void {
    let isBefore = this.isLost(chunk, from - 1);
    for (let block = from; block <= to; block++) {
      const isLost = this.isLost(chunk, block);
      if (isLost && !isBefore) this.ranges += sign;
      if (isLost && block < to) this.blocks += sign;
      isBefore = isLost;
    }
  }

  /** A block number outside the chunk means the block in the neighbouring chunk. */
  private isLost(chunk: number, block: number): boolean {
    const { geometry } = this.map;
    if (block < 0) return chunk > 0 && this.isLost(chunk - 1, geometry.blocksPerChunk - 1);
    if (block < geometry.blocksInChunk(chunk)) {
      return this.map.stateAt(chunk, block) === BlockState.LOST;
    }
    return chunk + 1 < geometry.chunkCount && this.isLost(chunk + 1, 0);
  }
}
