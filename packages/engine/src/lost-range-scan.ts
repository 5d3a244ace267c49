/** The lost ranges of a diff area, found in bounded steps: a map can have millions of recorded chunks. */
import { BlockState } from "./constants.js";
import type { DiffAreaMap } from "./diff-area-map.js";

export interface ByteRange {
  offsetBytes: number;
  lengthBytes: number;
}

export class LostRangeScan {
  /** In order; adjacent ranges are joined. */
  readonly ranges: ByteRange[] = [];
  private readonly map: DiffAreaMap;
  private readonly rangesMax: number;
  private chunk = 0;
  private isFull = false;

  /** @param rangesMax the scan ends once it has found so many */
  constructor(map: DiffAreaMap, rangesMax: number) {
    this.map = map;
    this.rangesMax = rangesMax;
  }

  get isDone(): boolean {
    return this.isFull || this.chunk >= this.map.geometry.chunkCount;
  }

  /** Continues for about so many units of work: chunks, and words of bitmaps. */
  step(unitsMax: number): void {
    const { geometry } = this.map;
    let units = unitsMax;
    this.chunk = this.map.visitTouched(this.chunk, unitsMax, (chunk) => {
      if (!this.map.hasHoles(chunk) || this.map.isReleased(chunk)) return true;
      if (units <= 0 || this.isFull) return false;
      units -= geometry.wordsPerChunk;
      this.look(chunk);
      return true;
    });
  }

  private look(chunk: number): void {
    const { map } = this;
    const blocks = map.geometry.blocksInChunk(chunk);
    for (let block = 0; block < blocks; ) {
      const end = map.stateEnd(chunk, block, blocks);
      if (map.stateAt(chunk, block) === BlockState.LOST) this.found(chunk, block, end);
      block = end;
    }
  }

  private found(chunk: number, from: number, to: number): void {
    const { geometry } = this.map;
    const chunkAt = chunk * geometry.chunkBytes;
    const offsetBytes = chunkAt + (from << geometry.blockShift);
    const endBytes = chunkAt + geometry.blockEndInChunk(chunk, to - 1);
    const last = this.ranges.at(-1);
    if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes) {
      last.lengthBytes = endBytes - last.offsetBytes;
    } else if (this.ranges.length === this.rangesMax) {
      this.isFull = true;
    } else {
      this.ranges.push({ offsetBytes, lengthBytes: endBytes - offsetBytes });
    }
  }
}
