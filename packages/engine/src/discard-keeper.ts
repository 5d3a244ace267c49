/**
 * Discards that a snapshot delays.
 *
 * A discard is a hint: "this data is no longer needed". While the snapshot needs the data, copying it for a hint would
 * be a waste. So such a discard is held back as a whole: answered at once, but not copied, not issued, and not marked
 * as a change. When no snapshot is left, the kept discards are issued, a slice at a time; adjacent blocks are joined,
 * whichever request discarded them.
 *
 *     DISCARD, some block unsaved --> kept -- write issued to it --> forgotten
 *                                      |
 *                                      +---- no area ---> slice: marked in CBT, issued, ended
 *
 * Rules that make this safe:
 *
 *     A write removes the blocks that it touches when it is issued, before it can reach the original. A discard does
 *     not keep blocks that a write issued before is still writing.
 *     Writes to the slice in flight wait for its end. At most one slice is in flight.
 *     A hold waits for the slice as for a write. No slice is issued while writes are held or an area is attached.
 *     Discards that are still kept at a take stay kept: the image shows what the original holds.
 *
 * Kept discards are forgotten when the process or the tracker ends; with `forgetsDiscards` they are not kept at all.
 * Write-zeroes is not a hint: the zero bytes can be read back, so it is treated as a write.
 */
import { RequestOp } from "./constants.js";
import { AreaPhase, type EngineCore } from "./core.js";
import { NONE } from "./request-queue.js";
import { RequestState } from "./request-table.js";
import { Stat } from "./stats.js";

/** The size of a slice at most, and so how long a writer may have to wait. */
const SLICE_BYTES = 64 * 2 ** 20;

export class DiscardKeeper {
  private readonly core: EngineCore;

  constructor(core: EngineCore) {
    this.core = core;
  }

  /** Called under an active area. True if located front request `tag` is a discard that is held back. */
  keeps(tag: number): boolean {
    const { front } = this.core;
    if (front.op[tag] !== RequestOp.DISCARD || !this.isNeeded(tag)) return false;
    this.core.counters[Stat.KEPT_DISCARDS]++;
    if (this.core.forgetsDiscards) return true;
    const { kept } = this.core;
    kept.keep(front.offsetBytes[tag], front.lengthBytes[tag]);
    for (let other = 0; other < front.depth; other++) {
      if (front.state[other] !== RequestState.ISSUED) continue;
      kept.forget(front.offsetBytes[other], front.lengthBytes[other]);
    }
    return true;
  }

  /** Front request `tag` is about to be issued. False: it has to wait for the slice in flight. */
  admits(tag: number): boolean {
    const { front, slice, kept } = this.core;
    const offset = front.offsetBytes[tag];
    const length = front.lengthBytes[tag];
    if (slice.inFlight) {
      const begin = slice.offsetBytes[0];
      if (offset < begin + slice.lengthBytes[0] && begin < offset + length) return false;
    }
    if (kept.count > 0) kept.forget(offset, length);
    return true;
  }

  /** The original was changed past the front, or might have been. */
  noteBypass(offsetBytes: number, lengthBytes: number): void {
    const { slice, kept } = this.core;
    kept.forget(offsetBytes, lengthBytes);
    slice.isDisturbed = true;
  }

  /** Issues the next slice, if there is one and nothing prevents it. */
  next(): void {
    const { core } = this;
    const { kept, slice } = core;
    const first = kept.count > 0 ? kept.first() : NONE;
    if (first === NONE || slice.inFlight || core.holding || core.phase !== AreaPhase.NONE) return;
    const size = kept.granuleBytes;
    const most = Math.max(1, SLICE_BYTES / size);
    // Cut at multiples of a slice, so that blocks of the CBT map stay whole.
    const end = kept.runEnd(first, (Math.floor(first / most) + 1) * most);
    const offset = first * size;
    slice.offsetBytes[0] = offset;
    slice.lengthBytes[0] = Math.min(end * size, core.geometry.capacityBytes) - offset;
    kept.forgetGranules(first, end);
    core.cbt.markRequest(slice.offsetBytes, slice.lengthBytes, 0);
    slice.inFlight = true;
    slice.isDisturbed = false;
    core.inflightWrites++;
    core.io.submitKept();
  }

  /** The original's answer to a slice. A failed slice is forgotten: it was a hint. */
  ended(result: number): void {
    const { core } = this;
    const { slice, discardWatch } = core;
    const offset = slice.offsetBytes[0];
    const length = slice.lengthBytes[0];
    slice.inFlight = false;
    core.inflightWrites--;
    if (result >= 0) {
      core.counters[Stat.SENT_DISCARD_BYTES] += length;
      const clean = !slice.isDisturbed && !discardWatch.isAwaited(offset, length);
      if (clean) core.cbt.recordDiscard(offset, length);
    }
    core.ready.appendAll(core.sliceWaiters);
  }

  /** True if the snapshot still needs some block that the request touches. */
  private isNeeded(tag: number): boolean {
    const { front, geometry } = this.core;
    const map = this.core.activeMap();
    const endChunk = front.endChunk[tag];
    let block = front.cursorBlock[tag];
    for (let chunk = front.cursorChunk[tag]; chunk <= endChunk; chunk++) {
      const limit = chunk === endChunk ? front.endBlock[tag] : geometry.blocksPerChunk;
      if (map.nextUnsaved(chunk, block, limit) < limit) return true;
      block = 0;
    }
    return false;
  }
}
