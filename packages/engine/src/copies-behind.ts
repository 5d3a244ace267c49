/**
 * Copies that go behind their write: once the old data is in its place and recorded there (see copy-records.ts), the
 * copy to the slot and the write of the original go side by side. The request ends when both have ended.
 *
 *     APART ──read──▶ BEHIND: recorded ─▶ slot is written ─▶ saved bits ─▶ record cleared ─┐
 *                        └──────────────▶ original is written ─────────────────────────────┴▶ the request ends
 *
 * Once a record is set, the original may have changed. So while such a copy is in flight, a clear bit proves nothing,
 * and reads of the image wait for the copy. A failed copy is written again from the place; nothing is read again.
 *
 * Only for snapshots that break when space is short, because an issued write cannot be refused. And only for the last
 * copy of a request, when all its other blocks are saved or lost.
 *
 * A process that is killed leaves records. The next process resumes these copies first; a tag of the front starts no
 * other copy behind its write while its place has one.
 */
import { BufferOwner, CopyKind, CopyMode, EIO, RequestOp } from "./constants.js";
import type { CopyRecords } from "./copy-records.js";
import type { EngineCore } from "./core.js";
import { NONE } from "./request-queue.js";
import { Stat } from "./stats.js";

export class CopiesBehind {
  /** Copies in flight behind their writes. */
  count: number = 0;
  /** Those of them that an earlier process has left. */
  private leftCount: number = 0;
  private readonly core: EngineCore;

  constructor(core: EngineCore) {
    this.core = core;
  }

  /** True if the copy that front request `tag` is about to start may use the tag's place. */
  mayHavePlace(tag: number, copy: number): boolean {
    const { copies, front, geometry } = this.core;
    const { records } = this;
    if (records === undefined || !this.core.area!.copiesBehind) return false;
    if (front.op[tag] !== RequestOp.WRITE) return false;
    const isLast =
      copies.chunk[copy] === front.endChunk[tag] && copies.rangeEnd[copy] === front.endBlock[tag];
    if (!isLast || front.pending[tag] > 0) return false;
    return records.isFree(tag, copies.blockCount[copy] << geometry.blockShift);
  }

  /** Records that the copy's old data is in its place: its request is about to write the original. */
  begin(copy: number): void {
    const { chunk, rangeStart, rangeEnd, bufferTag, mode } = this.core.copies;
    this.records!.set(bufferTag[copy], chunk[copy], rangeStart[copy], rangeEnd[copy]);
    mode[copy] = CopyMode.BEHIND;
    this.count++;
    this.core.counters[Stat.COPIES_BEHIND]++;
  }

  /** The copy's blocks are saved or lost: clears its record. */
  end(copy: number): void {
    const { mode, owner, bufferTag } = this.core.copies;
    if (mode[copy] !== CopyMode.BEHIND) return;
    mode[copy] = CopyMode.LINKED;
    this.count--;
    if (owner[copy] === NONE) this.leftCount--;
    this.records!.clear(bufferTag[copy]);
  }

  /** Late I/O still uses the memory of a front's tag: its place is not used again. */
  retire(copy: number): void {
    const { bufferOwner, bufferTag } = this.core.copies;
    if (bufferOwner[copy] === BufferOwner.FRONT) this.records?.retire(bufferTag[copy]);
  }

  /** The copy that an earlier process has left in the place of this tag, or NONE. */
  leftOf(tag: number): number {
    if (this.leftCount === 0) return NONE;
    const { size, mode, owner, bufferTag } = this.core.copies;
    for (let copy = 0; copy < size; copy++) {
      const isLeft = mode[copy] === CopyMode.BEHIND && owner[copy] === NONE;
      if (isLeft && bufferTag[copy] === tag) return copy;
    }
    return NONE;
  }

  /**
   * Resumes the copies that an earlier process has left. Call it before any request.
   * @param submit asks for a copy's I/O
   */
  resume(submit: (copy: number) => void): void {
    const { records } = this;
    if (records === undefined) return;
    const map = this.core.activeMap();
    for (let place = 0; place < records.count; place++) {
      if (!records.isSet(place)) continue;
      const end = records.endBlockOf(place);
      const chunk = records.chunkOf(place);
      const start = map.nextUnsaved(chunk, records.firstBlockOf(place), end);
      if (start === end) records.clear(place);
      else if (this.core.copies.freeCount > 0) submit(this.resumed(place, chunk, start, end));
      else {
        // The earlier process's front had more tags than this one has copies.
        this.core.lose(chunk, start, end, EIO);
        records.clear(place);
      }
    }
  }

  private resumed(place: number, chunk: number, start: number, end: number): number {
    const { copies, geometry } = this.core;
    const copy = copies.acquire(chunk, start, end);
    copies.mode[copy] = CopyMode.BEHIND;
    copies.kind[copy] = CopyKind.OLD;
    copies.slot[copy] = this.core.activeMap().slotOf(chunk);
    copies.owner[copy] = NONE;
    copies.bufferOwner[copy] = BufferOwner.FRONT;
    copies.bufferTag[copy] = place;
    const before = start - this.records!.firstBlockOf(place);
    copies.bufferOffsetBytes[copy] = before << geometry.blockShift;
    this.count++;
    this.leftCount++;
    this.core.counters[Stat.COPIES_RESUMED]++;
    return copy;
  }

  private get records(): CopyRecords | undefined {
    return this.core.area?.map.copyRecords;
  }
}
