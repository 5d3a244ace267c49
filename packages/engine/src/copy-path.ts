/**
 * Copies: how they start, end, fail and are retried.
 *
 *     launch --> I/O --ok--> saved bits set --> waiters and owner continue
 *                 |
 *                 +--late: blocks lost, or the owner's error; they continue without the answer
 *                 |
 *                 +--failed, several blocks--> again block by block, each ends as one of
 *                 |                              saved | lost (owner: front) | the owner's error
 *                 +--failed, one block or no space: lost, or the owner's error
 *
 * Bits are set only here, after the answer: if a bit is set, the block's old data is in the slot. A failed copy that
 * goes behind its write (copies-behind.ts) is written again from its place; any other is read again.
 *
 * When a write continues a sequence, its copy also copies blocks ahead of the write, in the same slot: one I/O instead
 * of one per block. That needs no additional slot, and it is optional: if it fails or is late, the copy shrinks to
 * what its request needs, and no block ahead of the write is lost.
 *
 * A front request's block is lost when it cannot be copied and the overflow policy lets its write continue. It is lost
 * under every policy when the original cannot be read: there is no old data to save, and a write is what repairs a bad
 * sector. An image request's block is never lost: the original still has it, and only the image write fails.
 */
import {
  BufferOwner,
  CopyFault,
  CopyKind,
  CopyMode,
  EIO,
  ENOSPC,
  ETIMEDOUT,
  OverflowPolicy,
} from "./constants.js";
import { AreaPhase, type EngineCore, Stop } from "./core.js";
import { IoStage, IoState } from "./io-state.js";
import { NONE } from "./request-queue.js";
import { RequestState } from "./request-table.js";
import { Stat } from "./stats.js";
import { AHEAD_SHIFT } from "./write-streams.js";

export class CopyPath {
  private readonly core: EngineCore;

  constructor(core: EngineCore) {
    this.core = core;
  }

  /**
   * How far from `start` blocks up to `end` are free of other copies: an end above `start`, or
   * Stop.COPY when the block at `start` itself is being copied.
   */
  freeEnd(chunk: number, start: number, end: number): number {
    const { copies } = this.core;
    const other = copies.find(chunk, start, end);
    if (other === NONE) return end;
    if (copies.rangeStart[other] > start) return copies.rangeStart[other];
    this.core.stopCopy = other;
    return Stop.COPY;
  }

  /** Starts a copy for front request `tag`, whose copy window must have room. */
  launchFront(tag: number, chunk: number, start: number, end: number, slot: number): void {
    const { behind, copies, counters, front, geometry } = this.core;
    const aheadEnd = front.aheadBlocks[tag] === 0 ? end : this.aheadEnd(tag, chunk, start, end);
    const copy = copies.acquire(chunk, start, aheadEnd);
    copies.ownEnd[copy] = end;
    if (aheadEnd > end) counters[Stat.COPIES_AHEAD]++;
    copies.kind[copy] = CopyKind.OLD;
    copies.slot[copy] = slot;
    copies.owner[copy] = tag;
    copies.bufferOwner[copy] = BufferOwner.FRONT;
    copies.bufferTag[copy] = tag;
    copies.bufferOffsetBytes[copy] = front.windowUsedBlocks[tag] << geometry.blockShift;
    front.windowUsedBlocks[tag] += aheadEnd - start;
    if (behind.mayHavePlace(tag, copy)) copies.mode[copy] = CopyMode.APART;
    front.pending[tag]++;
    this.submit(copy);
  }

  /** How far a copy of [start, end) may go ahead: over blocks of its slot that are neither saved nor being copied. */
  private aheadEnd(tag: number, chunk: number, start: number, end: number): number {
    const { copies, front, geometry, windowBlocks } = this.core;
    if (chunk !== front.endChunk[tag] || end !== front.endBlock[tag]) return end;
    const runShift = AHEAD_SHIFT - geometry.blockShift;
    const runEnd = ((end + (1 << runShift) - 1) >> runShift) << runShift;
    const room = windowBlocks - front.windowUsedBlocks[tag] - (end - start);
    const most = end + Math.min(front.aheadBlocks[tag], room);
    const limit = Math.min(most, runEnd, geometry.blocksInChunk(chunk));
    if (limit <= end) return end;
    const unsaved = this.core.activeMap().nextSaved(chunk, end, limit);
    if (unsaved === end) return end;
    const other = copies.find(chunk, end, unsaved);
    return other === NONE ? unsaved : copies.rangeStart[other];
  }

  /** Starts a one-block copy for image request `tag`; `place` (0 or 1) is the half of its copy window. */
  launchImage(
    tag: number,
    chunk: number,
    block: number,
    slot: number,
    kind: number,
    place: number,
  ): void {
    const { copies, front, image, geometry } = this.core;
    const copy = copies.acquire(chunk, block, block + 1);
    copies.kind[copy] = kind;
    copies.slot[copy] = slot;
    copies.owner[copy] = front.depth + tag;
    copies.bufferOwner[copy] = BufferOwner.IMAGE;
    copies.bufferTag[copy] = tag;
    copies.bufferOffsetBytes[copy] = place << geometry.blockShift;
    image.pending[tag]++;
    this.submit(copy);
  }

  /** An entry in the table of copies for blocks that a run of image request `tag` writes itself. */
  acquireDirect(tag: number, chunk: number, start: number, end: number, slot: number): number {
    const { copies, front } = this.core;
    const copy = copies.acquire(chunk, start, end);
    copies.kind[copy] = CopyKind.DIRECT;
    copies.slot[copy] = slot;
    copies.owner[copy] = front.depth + tag;
    return copy;
  }

  /** Notes that the copy has reached this stage, and restarts its bound. */
  onStage(copy: number, stage: number): void {
    const { copies } = this.core;
    copies.stage[copy] = stage;
    copies.since[copy] = this.core.ioTicks;
  }

  /** Gives up copies whose bound has passed. */
  expire(): void {
    const { core } = this;
    const { copies } = core;
    for (let copy = 0; copy < copies.size; copy++) {
      if (copies.state[copy] !== IoState.LIVE || copies.kind[copy] === CopyKind.DIRECT) continue;
      if (core.isLate(copies.since[copy], copies.stage[copy])) this.setLate(copy);
    }
    if (copies.isExhausted()) core.ready.appendAll(core.copyWaiters);
  }

  /** The area is closed: results of late copies are no longer wanted. */
  orphan(): void {
    const { state, size } = this.core.copies;
    for (let copy = 0; copy < size; copy++) {
      if (state[copy] === IoState.LATE) state[copy] = IoState.ORPHANED;
    }
  }

  /** The host's answer to submitCopy. */
  onDone(copy: number, result: number, fault: number): void {
    const { copies } = this.core;
    if (copies.state[copy] !== IoState.LIVE) {
      this.endLate(copy);
      return;
    }
    const failed = result < 0;
    let continues = this.core.phase === AreaPhase.ACTIVE;
    if (continues && copies.isStale[copy] === 1) {
      // The saved blocks of its slot are lost now, but not those that it is about to save again.
      this.core.checkLosses(copies.chunk[copy]);
      if (!failed) {
        this.tryAgain(copy);
        return;
      }
    }
    if (continues && failed) {
      if (copies.ownEnd[copy] < copies.rangeEnd[copy]) {
        this.takeBack(copy);
        this.tryAgain(copy);
        return;
      }
      if (copies.blockCount[copy] > 1 && result !== -ENOSPC) {
        copies.blockCount[copy] = 1;
        this.tryAgain(copy);
        return;
      }
      continues = this.fail(copy, result, fault);
    } else if (continues) {
      this.succeed(copy);
    }
    const nextBlock = copies.blockStart[copy] + copies.blockCount[copy];
    if (continues && nextBlock < copies.rangeEnd[copy]) {
      copies.bufferOffsetBytes[copy] += copies.blockCount[copy] << this.core.geometry.blockShift;
      copies.blockStart[copy] = nextBlock;
      this.tryAgain(copy);
      return;
    }
    this.end(copy);
  }

  /** Ends a copy: its waiters continue, and so does its owner if nothing else is in flight for it. */
  end(copy: number): void {
    this.core.behind.end(copy);
    this.release(copy);
    this.continueOwner(this.core.copies.owner[copy]);
  }

  /** Reduces a failed copy to what its request needs. No copy goes ahead until new sequences are found. */
  private takeBack(copy: number): void {
    const { copies, streams } = this.core;
    copies.rangeEnd[copy] = copies.ownEnd[copy];
    copies.blockCount[copy] = copies.ownEnd[copy] - copies.blockStart[copy];
    streams.forget();
  }

  private continueOwner(owner: number): void {
    const { front, image } = this.core;
    if (owner === NONE) return;
    const pending = owner < front.depth ? front.pending : image.pending;
    const tag = owner < front.depth ? owner : owner - front.depth;
    pending[tag]--;
    if (pending[tag] > 0) return;
    const isIssued = owner < front.depth && front.state[tag] === RequestState.ISSUED;
    if (!isIssued) this.core.wake(owner);
    else if (front.isAnswered[tag] === 1) this.core.ready.push(owner);
  }

  /** Frees the copy; its waiters continue. */
  release(copy: number): void {
    this.core.wakeWaiters(copy);
    this.core.copies.free(copy);
  }

  private setLate(copy: number): void {
    const { core } = this;
    const { copies } = core;
    core.noteLate(copies.slot[copy]);
    if (core.phase === AreaPhase.ACTIVE) this.giveUp(copy);
    core.behind.end(copy);
    core.behind.retire(copy);
    core.io.onCopyLate(copy);
    core.wakeWaiters(copy);
    copies.setLate(copy);
    this.continueOwner(copies.owner[copy]);
  }

  private endLate(copy: number): void {
    const { core } = this;
    const isOfArea = core.copies.state[copy] === IoState.LATE;
    if (isOfArea && core.phase === AreaPhase.ACTIVE) core.noteAnswered(core.copies.slot[copy]);
    core.copies.free(copy);
  }

  /** The store hangs: blocks that are not copied yet are given up. */
  private giveUp(copy: number): void {
    const { copies, front, image } = this.core;
    const owner = copies.owner[copy];
    if (owner >= front.depth) image.error[owner - front.depth] = -EIO;
    else if (this.mayRefuse(copy)) front.error[owner] = -EIO;
    else {
      const { chunk, blockStart, ownEnd } = copies;
      this.core.lose(chunk[copy], blockStart[copy], ownEnd[copy], ETIMEDOUT);
    }
  }

  private tryAgain(copy: number): void {
    const { copies, area, counters } = this.core;
    if (area!.isHung(copies.slot[copy])) {
      this.giveUp(copy);
      this.end(copy);
      return;
    }
    counters[Stat.COPY_RETRIES]++;
    if (copies.mode[copy] === CopyMode.APART) copies.mode[copy] = CopyMode.LINKED;
    this.submit(copy);
  }

  /** Resumes the copies that an earlier process has left. Call it before any request. */
  resume(): void {
    this.core.behind.resume((copy) => this.submit(copy));
  }

  private submit(copy: number): void {
    const { copies, geometry, io } = this.core;
    this.onStage(copy, IoStage.READING);
    copies.isStale[copy] = 0;
    const start = copies.blockStart[copy];
    const last = start + copies.blockCount[copy] - 1;
    const endBytes = geometry.blockEndInChunk(copies.chunk[copy], last);
    copies.lengthBytes[copy] = endBytes - (start << geometry.blockShift);
    io.submitCopy(copy);
  }

  private succeed(copy: number): void {
    const { copies, counters } = this.core;
    const start = copies.blockStart[copy];
    const end = start + copies.blockCount[copy];
    this.core.activeMap().setSaved(copies.chunk[copy], start, end);
    counters[Stat.COPIES]++;
    counters[Stat.COPIED_BYTES] += copies.lengthBytes[copy];
  }

  /** True if a write must fail or wait without its copy. A write whose copy goes behind it is issued already. */
  private mayRefuse(copy: number): boolean {
    const { area, copies } = this.core;
    const isBehind = copies.mode[copy] === CopyMode.BEHIND;
    return !isBehind && area!.overflow !== OverflowPolicy.BREAK_SNAPSHOT;
  }

  /** True if the copy continues with the blocks after the failed one. */
  private fail(copy: number, result: number, fault: number): boolean {
    const { copies, front, image } = this.core;
    const owner = copies.owner[copy];
    if (owner >= front.depth) {
      image.error[owner - front.depth] = result;
      return false;
    }
    const noSpace = result === -ENOSPC;
    const errno = noSpace ? ENOSPC : EIO;
    if (fault !== CopyFault.READ && this.mayRefuse(copy)) {
      front.error[owner] = -errno;
      return false;
    }
    const start = copies.blockStart[copy];
    const end = noSpace ? copies.rangeEnd[copy] : start + copies.blockCount[copy];
    this.core.lose(copies.chunk[copy], start, end, errno);
    return !noSpace;
  }
}
