/**
 * Finds writes that follow each other without a gap, among others that do not.
 *
 *     write      | 0 | 1 | 2 | 3 |  4  |   ...
 *     sequence   one block .. four     the fifth may copy four blocks ahead, and so on
 *
 * A write that begins where an earlier one ended continues its sequence. As much as the sequence is long may be copied
 * ahead: so at most as much again is copied in vain, and random writes, which form no sequence, copy nothing ahead. A
 * few sequences are remembered. A newcomer replaces one only after repeated attempts, more of them the longer the
 * sequence is, so that random writes in between do not end it.
 */
const STREAMS = 4;
/** Shorter sequences may be chance. */
const BLOCKS_MIN = 4;
/** A copy goes ahead to the next multiple of this at most. */
export const AHEAD_SHIFT = 18;

export class WriteStreams {
  private readonly endBytes: Float64Array = new Float64Array(STREAMS).fill(-1);
  private readonly lengthBytes: Int32Array = new Int32Array(STREAMS);
  private readonly blockShift: number;
  private hand: number = 0;

  constructor(blockShift: number) {
    this.blockShift = blockShift;
  }

  /** Notes a write, given by its columns. Returns how many blocks may be copied ahead of it. */
  note(offsetBytes: Float64Array, lengthBytes: Float64Array, tag: number): number {
    const offset = offsetBytes[tag];
    const end = offset + lengthBytes[tag];
    for (let stream = 0; stream < STREAMS; stream++) {
      if (this.endBytes[stream] !== offset) continue;
      const before = this.lengthBytes[stream];
      this.endBytes[stream] = end;
      this.lengthBytes[stream] = Math.min(before + (end - offset), 1 << AHEAD_SHIFT);
      const blocks = before >> this.blockShift;
      return blocks < BLOCKS_MIN ? 0 : blocks;
    }
    this.begin(end);
    return 0;
  }

  /** Nothing is copied ahead until new sequences have formed. */
  forget(): void {
    this.endBytes.fill(-1);
    this.lengthBytes.fill(0);
  }

  private begin(end: number): void {
    const at = this.hand;
    this.hand = (at + 1) % STREAMS;
    const length = this.lengthBytes[at];
    if (length >> this.blockShift >= BLOCKS_MIN) {
      this.lengthBytes[at] = length >> 1;
      return;
    }
    this.endBytes[at] = end;
    this.lengthBytes[at] = 1 << this.blockShift;
  }
}
