/**
 * The front: users' requests to the original.
 *
 *     READ, FLUSH   ------------------------------------------------> original
 *     WRITE, DISCARD, WRITE_ZEROES
 *                   mark CBT -> save old blocks (active area) -> held? -> original
 *     DISCARD of blocks that the active area still needs: kept back, see discard-keeper
 *
 * Saving proceeds over the request from its cursor. Saved blocks are skipped, runs of unsaved blocks are copied, and
 * the pass ends at the first obstacle: a block that another request is copying, an exhausted pool, a full copy window.
 * If the request has copies in flight it continues when these have ended, else it parks on what stopped it. The cursor
 * only moves forward: blocks before it are saved or lost, at the latest when `pending` is zero again. So a discard of
 * any length proceeds window by window and never checks a block twice. A write whose last copy may go behind is
 * issued as soon as the copy's read has ended, and ends when both have ended (copies-behind.ts).
 *
 * Without room for old data, or while the store hangs, the area's overflow policy decides:
 *
 *     BREAK_SNAPSHOT  blocks lost, the request continues
 *     FAIL_WRITES     the request ends with the error, before any of it was issued
 *     BLOCK_WRITES    the request waits; a grant or a tick wakes it, and it begins again
 */
import { assert } from "./assert.js";
import { EINVAL, EIO, EOPNOTSUPP, ETIMEDOUT, OverflowPolicy, RequestOp } from "./constants.js";
import type { CopyPath } from "./copy-path.js";
import { AreaPhase, type EngineCore, Stop } from "./core.js";
import type { DiscardKeeper } from "./discard-keeper.js";
import { NONE } from "./request-queue.js";
import { RequestState } from "./request-table.js";
import { Stat } from "./stats.js";

export class FrontPath {
  private readonly core: EngineCore;
  private readonly copyPath: CopyPath;
  private readonly keeper: DiscardKeeper;

  constructor(core: EngineCore, copyPath: CopyPath, keeper: DiscardKeeper) {
    this.core = core;
    this.copyPath = copyPath;
    this.keeper = keeper;
  }

  /** A new request. */
  submit(tag: number): void {
    const { front, counters } = this.core;
    const op = front.op[tag];
    if (op === RequestOp.READ) {
      counters[Stat.FRONT_READS]++;
      this.core.io.submitOriginal(tag);
    } else if (op === RequestOp.FLUSH) {
      counters[Stat.FRONT_FLUSHES]++;
      this.core.io.submitOriginal(tag);
    } else if (
      op === RequestOp.WRITE ||
      op === RequestOp.DISCARD ||
      op === RequestOp.WRITE_ZEROES
    ) {
      counters[op === RequestOp.WRITE ? Stat.FRONT_WRITES : Stat.FRONT_DISCARDS]++;
      this.submitWrite(tag);
    } else {
      this.core.io.completeFront(tag, -EOPNOTSUPP);
    }
  }

  /** Starts a write-like request from its beginning: a new one, or one that was held. */
  start(tag: number): void {
    const { core } = this;
    if (core.phase !== AreaPhase.ACTIVE) {
      this.mark(tag);
      this.issue(tag);
      return;
    }
    core.front.locate(tag, core.geometry);
    if (this.keeper.keeps(tag)) {
      core.front.state[tag] = RequestState.IDLE;
      core.io.completeFront(tag, 0);
      return;
    }
    this.mark(tag);
    this.noteSequence(tag);
    core.front.state[tag] = RequestState.ACTIVE;
    this.advance(tag);
  }

  /** Resumes a write-like request that has nothing in flight. */
  advance(tag: number): void {
    const { core } = this;
    if (core.phase === AreaPhase.ACTIVE) {
      if (core.front.error[tag] !== 0 && !this.retry(tag)) return;
      if (!this.preserve(tag)) return;
    }
    this.issue(tag);
  }

  /** The original's answer. */
  onOriginalDone(tag: number, result: number): void {
    const { core } = this;
    const op = core.front.op[tag];
    if (op === RequestOp.READ || op === RequestOp.FLUSH) {
      core.io.completeFront(tag, op === RequestOp.FLUSH && result > 0 ? 0 : result);
      return;
    }
    if (core.front.pending[tag] > 0) {
      // Its copy goes behind: the later of the two answers ends the request.
      core.front.answer[tag] = result;
      core.front.isAnswered[tag] = 1;
      return;
    }
    this.end(tag, result);
  }

  /** The copy that went behind has ended, after the original's answer. */
  endAnswered(tag: number): void {
    const { front } = this.core;
    front.isAnswered[tag] = 0;
    this.end(tag, front.answer[tag]);
  }

  /** Ends a write-like request that was issued. */
  private end(tag: number, result: number): void {
    const { core } = this;
    const op = core.front.op[tag];
    core.front.state[tag] = RequestState.IDLE;
    core.inflightWrites--;
    if (op !== RequestOp.WRITE) core.discardWatch.ended(tag, result);
    try {
      core.io.completeFront(tag, op !== RequestOp.WRITE && result > 0 ? 0 : result);
    } finally {
      if (core.holding) this.reportDrained();
    }
  }

  /** Tells the host, once per hold, that no write is in flight. */
  reportDrained(): void {
    const { core } = this;
    if (core.inflightWrites > 0 || core.drainReported) return;
    core.drainReported = true;
    core.io.onDrained();
  }

  private submitWrite(tag: number): void {
    const { core } = this;
    if (!core.front.isValid(tag, core.geometry)) {
      // None of it is issued, so there is nothing to track either.
      core.io.completeFront(tag, -EINVAL);
    } else if (core.holding && core.phase !== AreaPhase.ACTIVE) {
      this.hold(tag);
    } else {
      this.start(tag);
    }
  }

  private mark(tag: number): void {
    const { front, cbt } = this.core;
    cbt.markRequest(front.offsetBytes, front.lengthBytes, tag);
  }

  private noteSequence(tag: number): void {
    const { front, streams } = this.core;
    const { offsetBytes, lengthBytes } = front;
    const isWrite = front.op[tag] === RequestOp.WRITE;
    front.aheadBlocks[tag] = isWrite ? streams.note(offsetBytes, lengthBytes, tag) : 0;
  }

  private hold(tag: number): void {
    this.core.counters[Stat.HELD]++;
    this.core.front.state[tag] = RequestState.PARKED;
    this.core.held.push(tag);
  }

  /** Issues the request to the original, unless held. All its blocks are marked, and saved or lost. */
  private issue(tag: number): void {
    const { core } = this;
    if (core.holding) {
      this.hold(tag);
      return;
    }
    if (!this.keeper.admits(tag)) {
      core.park(tag, Stop.SLICE);
      return;
    }
    this.send(tag);
  }

  /** The old data of the request's only remaining copy is in its place: the copy and the write may go side by side. */
  issueBefore(copy: number): void {
    const { core } = this;
    const tag = core.copies.owner[copy];
    if (core.phase !== AreaPhase.ACTIVE || core.holding) return;
    // What it had saved was lost with its slot: it is retried, and reads an original that must not have changed.
    if (core.copies.isStale[copy] === 1) return;
    if (!this.keeper.admits(tag)) return;
    assert(core.front.pending[tag] === 1, "a copy goes behind beside others");
    core.behind.begin(copy);
    this.send(tag);
  }

  private send(tag: number): void {
    const { core } = this;
    const { front, discardWatch } = core;
    front.state[tag] = RequestState.ISSUED;
    core.inflightWrites++;
    if (front.op[tag] !== RequestOp.WRITE || discardWatch.inFlight > 0) discardWatch.issued(tag);
    try {
      core.io.submitOriginal(tag);
    } catch (error) {
      this.issueFailed(tag);
      throw error;
    }
  }

  /** The host threw. If it throws again here, the cause is the same. */
  private issueFailed(tag: number): void {
    try {
      this.onOriginalDone(tag, -EIO);
    } catch {}
  }

  /** Saves blocks that are not saved yet. True when all are saved or lost. */
  private preserve(tag: number): boolean {
    const { core } = this;
    const { front } = core;
    assert(front.pending[tag] === 0, "front request continues with copies in flight");
    front.windowUsedBlocks[tag] = 0;
    const stop = this.pass(tag);
    if (front.pending[tag] > 0) return false;
    if (stop === 0) return true;
    if (stop === Stop.ERROR) {
      this.refuse(tag);
      return false;
    }
    assert(stop !== Stop.WINDOW, "copy window full without a copy in it");
    core.park(tag, stop);
    return false;
  }

  /** One pass from the cursor: 0 at the end of the request, or what stopped it. */
  private pass(tag: number): number {
    const { front, geometry } = this.core;
    const map = this.core.activeMap();
    const endChunk = front.endChunk[tag];
    let chunk = front.cursorChunk[tag];
    let block = front.cursorBlock[tag];
    let stop = 0;
    while (chunk <= endChunk) {
      const limit = chunk === endChunk ? front.endBlock[tag] : geometry.blocksPerChunk;
      block = map.nextUnsaved(chunk, block, limit);
      if (block === limit) {
        chunk++;
        block = 0;
        continue;
      }
      const reached = this.preserveRun(tag, chunk, block, map.nextSaved(chunk, block, limit));
      if (reached < 0) {
        stop = reached;
        break;
      }
      block = reached;
    }
    front.cursorChunk[tag] = chunk;
    front.cursorBlock[tag] = block;
    return stop;
  }

  /** Starts copying unsaved blocks [start, end). Returns how far it got, or what stopped it. */
  private preserveRun(tag: number, chunk: number, start: number, end: number): number {
    const { core } = this;
    const room = core.windowBlocks - core.front.windowUsedBlocks[tag];
    if (room === 0) return Stop.WINDOW;
    const left = core.behind.leftOf(tag);
    if (left !== NONE) {
      core.stopCopy = left;
      return Stop.COPY;
    }
    const free = this.copyPath.freeEnd(chunk, start, end);
    if (free < 0) return free;
    const slot = core.slotFor(chunk);
    if (slot < 0) {
      if (slot === Stop.STORE_HUNG) return this.overflow(tag, chunk, start, free, ETIMEDOUT);
      if (slot !== Stop.SLOTS_DENIED) return slot;
      return this.overflow(tag, chunk, start, free, core.deniedErrno);
    }
    if (!core.mayAcquireCopy()) {
      if (core.copies.isExhausted()) return this.overflow(tag, chunk, start, free, ETIMEDOUT);
      return Stop.COPY_POOL;
    }
    const reached = free - start > room ? start + room : free;
    this.copyPath.launchFront(tag, chunk, start, reached, slot);
    return reached;
  }

  /** Unsaved blocks [start, end) find no room. Returns how far the request may continue, or what stopped it. */
  private overflow(tag: number, chunk: number, start: number, end: number, errno: number): number {
    const { core } = this;
    const policy = core.area!.overflow;
    if (policy === OverflowPolicy.BLOCK_WRITES) return Stop.BLOCKED;
    if (policy === OverflowPolicy.FAIL_WRITES) {
      core.front.error[tag] = errno === ETIMEDOUT ? -EIO : -errno;
      return Stop.ERROR;
    }
    core.lose(chunk, start, end, errno);
    return end;
  }

  /** Old data could not be written to its slot. True: the request begins again at once. */
  private retry(tag: number): boolean {
    const { core } = this;
    const policy = core.area!.overflow;
    if (policy === OverflowPolicy.FAIL_WRITES) {
      this.refuse(tag);
      return false;
    }
    core.front.rewind(tag, core.geometry);
    if (policy === OverflowPolicy.BREAK_SNAPSHOT) return true;
    core.park(tag, Stop.BLOCKED);
    return false;
  }

  /** Ends with its error a request of which nothing was issued. */
  private refuse(tag: number): void {
    const { core } = this;
    core.counters[Stat.REFUSED_WRITES]++;
    core.front.state[tag] = RequestState.IDLE;
    core.io.completeFront(tag, core.front.error[tag]);
  }
}
