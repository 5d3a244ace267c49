/**
 * Decides which discards of the original may be recorded in the CBT map as discards.
 *
 * A block counts as discarded only if the discard has succeeded and no write to the block was in flight at any moment
 * between the discard's issue and its end: otherwise it is unknown which of them won.
 *
 *     write  |-- issued ----------|                        found when the discard is issued
 *     write          |-- issued --|                        found when the write is issued
 *     write                |-- marked, not issued yet ...  found when the discard ends
 *     discard     |------------------------|
 *
 * A discard that overlaps such a write counts as a plain change. Writes pay one read of `inFlight`; the table is
 * searched only while discards are in flight.
 */
import type { CbtMap } from "./cbt-map.js";
import { RequestFlag, RequestOp } from "./constants.js";
import { RequestState, type RequestTable } from "./request-table.js";

const CLEAN = 1;
const DISTURBED = 2;

export class DiscardWatch {
  /** Discards in flight to the original. */
  inFlight: number = 0;
  private readonly front: RequestTable;
  cbt: CbtMap;
  /** Per tag: 0, or CLEAN or DISTURBED for a discard in flight. */
  private readonly watched: Uint8Array;

  constructor(front: RequestTable, cbt: CbtMap) {
    this.front = front;
    this.cbt = cbt;
    this.watched = new Uint8Array(front.depth);
  }

  /** True if the request removes the old content and brings no data. */
  discards(tag: number): boolean {
    const op = this.front.op[tag];
    if (op === RequestOp.DISCARD) return true;
    if (op !== RequestOp.WRITE_ZEROES) return false;
    return (this.front.flags[tag] & RequestFlag.NOUNMAP) === 0;
  }

  /** A write-like request is being issued, and is in state ISSUED. Only needed while discards are in flight. */
  issued(tag: number): void {
    const { front, watched } = this;
    const begins = this.discards(tag);
    if (begins) {
      this.inFlight++;
      watched[tag] = CLEAN;
    }
    for (let other = 0; other < front.depth; other++) {
      if (other === tag || front.state[other] !== RequestState.ISSUED) continue;
      if (!this.overlaps(tag, other)) continue;
      if (watched[other] === 0) {
        if (begins) watched[tag] = DISTURBED;
      } else if (!begins) watched[other] = DISTURBED;
    }
  }

  /** The original has answered a discard, which is IDLE again. */
  ended(tag: number, result: number): void {
    const { front, watched } = this;
    if (watched[tag] === 0) return;
    let clean = watched[tag] === CLEAN && result >= 0;
    watched[tag] = 0;
    this.inFlight--;
    for (let other = 0; clean && other < front.depth; other++) {
      if (other === tag || front.state[other] === RequestState.IDLE) continue;
      if (!this.discards(other) && this.overlaps(tag, other)) clean = false;
    }
    if (clean) this.cbt.recordDiscard(front.offsetBytes[tag], front.lengthBytes[tag]);
  }

  /** The original was changed past the front, or might have been. */
  noteBypass(): void {
    for (let tag = 0; this.inFlight > 0 && tag < this.watched.length; tag++) {
      if (this.watched[tag] === CLEAN) this.watched[tag] = DISTURBED;
    }
  }

  /** True if a request that brings data to the range was accepted and has not ended. */
  isAwaited(offset: number, length: number): boolean {
    const { offsetBytes, lengthBytes, state, depth } = this.front;
    for (let tag = 0; tag < depth; tag++) {
      if (state[tag] === RequestState.IDLE || this.discards(tag)) continue;
      const overlaps = offset < offsetBytes[tag] + lengthBytes[tag];
      if (overlaps && offsetBytes[tag] < offset + length) return true;
    }
    return false;
  }

  private overlaps(tag: number, other: number): boolean {
    const { offsetBytes, lengthBytes } = this.front;
    return (
      offsetBytes[tag] < offsetBytes[other] + lengthBytes[other] &&
      offsetBytes[other] < offsetBytes[tag] + lengthBytes[tag]
    );
  }
}
