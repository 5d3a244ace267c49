/**
 * Finds the chunks whose slots were lost when their store was truncated: in bounded steps, as a map can have millions
 * of chunks, and at once where a request needs to know.
 *
 *     chunks    | found        cursor ──▶ checked      checked
 *
 * What is saved there after the truncation is valid. So a chunk is checked once: when the cursor reaches it, or earlier
 * for a request that copies into it or reads its slot.
 */
import { bitAt, setBits } from "./bits.js";
import { BlockState } from "./constants.js";
import { type DiffAreaMap, NO_SLOT } from "./diff-area-map.js";

/** Records blocks [from, to) of a chunk as lost. */
export type LoseBlocks = (chunk: number, from: number, to: number) => void;

export class LostSlots {
  readonly firstSlot: number;
  readonly lastSlot: number;
  private readonly map: DiffAreaMap;
  private readonly lose: LoseBlocks;
  /** A bit per chunk; takes memory only where chunks are checked early. */
  private readonly checked: Int32Array;
  private cursor: number = 0;

  constructor(map: DiffAreaMap, firstSlot: number, lastSlot: number, lose: LoseBlocks) {
    this.map = map;
    this.firstSlot = firstSlot;
    this.lastSlot = lastSlot;
    this.lose = lose;
    this.checked = new Int32Array(Math.ceil(map.geometry.chunkCount / 32));
  }

  get isDone(): boolean {
    return this.cursor >= this.map.geometry.chunkCount;
  }

  has(slot: number): boolean {
    return slot >= this.firstSlot && slot <= this.lastSlot;
  }

  /** Must be called before a request relies on the chunk's content, and before the chunk gets a slot. */
  check(chunk: number): void {
    if (chunk < this.cursor || bitAt(this.checked, 0, chunk)) return;
    setBits(this.checked, 0, chunk, chunk + 1);
    if (this.isGone(chunk)) this.loseChunk(chunk);
  }

  /** Continues for about so many units of work: chunks, and blocks that are lost. */
  step(unitsMax: number): void {
    const { wordsPerChunk } = this.map.geometry;
    let units = unitsMax;
    this.cursor = this.map.visitTouched(this.cursor, unitsMax, (chunk) => {
      if (bitAt(this.checked, 0, chunk) || !this.isGone(chunk)) return true;
      if (units <= 0) return false;
      units -= wordsPerChunk + this.loseChunk(chunk);
      return true;
    });
  }

  private isGone(chunk: number): boolean {
    const slot = this.map.slotOf(chunk);
    return slot !== NO_SLOT && this.has(slot);
  }

  /** Returns how many blocks that loses. */
  private loseChunk(chunk: number): number {
    const { map } = this;
    const blocks = map.geometry.blocksInChunk(chunk);
    let lost = 0;
    for (let block = 0; block < blocks; ) {
      const end = map.stateEnd(chunk, block, blocks);
      if (map.stateAt(chunk, block) === BlockState.DATA) {
        this.lose(chunk, block, end);
        lost += end - block;
      }
      block = end;
    }
    return lost;
  }
}
