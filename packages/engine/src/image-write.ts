/**
 * Writes to the image: they go to slots and never reach the original.
 *
 *     request          |..head..|   whole blocks   |..tail..|
 *     not in the slot    copy     straight to the    copy       head and tail first: the rest of such a
 *     yet                old      slot: "direct"     old        block must be in the slot, too
 *     in the slot        in place in place           in place
 *
 * A direct write takes an entry in the table of copies, so that requests that need one of its blocks wait for it; its
 * saved bits are set when it has succeeded. A failed one leaves them clear: the old data is still in the original, and
 * each waiting request checks again and copies it. Writing a whole block over a lost one heals it; writing a part of a
 * lost one is an error.
 */
import { BlockState, CopyKind, EIO, RunKind } from "./constants.js";
import type { CopyPath } from "./copy-path.js";
import { type EngineCore, Stop } from "./core.js";

import { NONE } from "./request-queue.js";
import type { RunPath } from "./run-path.js";

export class ImageWriter {
  private readonly core: EngineCore;
  private readonly runPath: RunPath;
  private readonly copyPath: CopyPath;

  constructor(core: EngineCore, runPath: RunPath, copyPath: CopyPath) {
    this.core = core;
    this.runPath = runPath;
    this.copyPath = copyPath;
  }

  /** Continues from the cursor: 0 at the end of the request, or what stopped it. */
  pass(tag: number): number {
    const { image, geometry } = this.core;
    const edges = this.prepareEdges(tag);
    if (edges !== 0) return edges;
    const endChunk = image.endChunk[tag];
    let chunk = image.cursorChunk[tag];
    let block = image.cursorBlock[tag];
    let stop = 0;
    while (chunk <= endChunk) {
      const limit = chunk === endChunk ? image.endBlock[tag] : geometry.blocksPerChunk;
      if (block === limit) {
        chunk++;
        block = 0;
        continue;
      }
      const reached = this.writeRun(tag, chunk, block, limit);
      if (reached < 0) {
        stop = reached;
        break;
      }
      block = reached;
    }
    image.cursorChunk[tag] = chunk;
    image.cursorBlock[tag] = block;
    return stop;
  }

  /** Brings partly written blocks into their slot. Returns 0 when all are there, or what stopped it. */
  private prepareEdges(tag: number): number {
    const { image, geometry } = this.core;
    const beginBlock = image.beginInChunkBytes[tag] >> geometry.blockShift;
    const beginChunk = image.beginChunk[tag];
    const endChunk = image.endChunk[tag];
    const lastBlock = image.endBlock[tag] - 1;
    const headCut = (image.beginInChunkBytes[tag] & (geometry.blockBytes - 1)) !== 0;
    const tailEnd = geometry.blockEndInChunk(endChunk, lastBlock);
    const tailCut = image.endInChunkBytes[tag] !== tailEnd;
    const oneBlock = beginChunk === endChunk && beginBlock === lastBlock;
    let stop = 0;
    if (headCut && !this.hasPassed(tag, beginChunk, beginBlock)) {
      stop = this.prepareBlock(tag, beginChunk, beginBlock, 0);
    }
    if (stop !== 0 && stop !== Stop.OWN) return stop;
    if (tailCut && !(headCut && oneBlock) && !this.hasPassed(tag, endChunk, lastBlock)) {
      const tail = this.prepareBlock(tag, endChunk, lastBlock, 1);
      if (tail !== 0) stop = tail;
    }
    return stop;
  }

  private hasPassed(tag: number, chunk: number, block: number): boolean {
    const { cursorChunk, cursorBlock } = this.core.image;
    return cursorChunk[tag] > chunk || (cursorChunk[tag] === chunk && cursorBlock[tag] > block);
  }

  /** Returns 0 if the block is in its slot, Stop.OWN if it is being copied there, or what stopped it. */
  private prepareBlock(tag: number, chunk: number, block: number, place: number): number {
    const { core } = this;
    core.checkLosses(chunk);
    const state = core.activeMap().stateAt(chunk, block);
    if (state === BlockState.DATA) return 0;
    if (state === BlockState.LOST) return this.fail(tag, -EIO);
    const free = this.copyPath.freeEnd(chunk, block, block + 1);
    if (free < 0) return free;
    const slot = this.slotFor(tag, chunk);
    if (slot < 0) return slot;
    if (!core.mayAcquireCopy()) return this.withoutCopy(tag);
    const kind = state === BlockState.ZERO ? CopyKind.ZERO : CopyKind.OLD;
    this.copyPath.launchImage(tag, chunk, block, slot, kind, place);
    return Stop.OWN;
  }

  /** Starts one run at `block`. Returns the block after it, or what stopped it. */
  private writeRun(tag: number, chunk: number, block: number, limit: number): number {
    const { core, runPath, copyPath } = this;
    const map = core.activeMap();
    core.checkLosses(chunk);
    const end = map.stateEnd(chunk, block, limit);
    if (core.runs.isExhausted()) return this.fail(tag, -EIO);
    if (map.stateAt(chunk, block) === BlockState.DATA) {
      const slot = this.slotFor(tag, chunk);
      if (slot < 0) return slot;
      if (!runPath.mayAcquire(tag)) return Stop.RUN_POOL;
      const run = runPath.acquire(tag);
      runPath.launch(run, tag, RunKind.WRITE_SLOT, chunk, block, end, slot, NONE);
      return end;
    }
    const free = copyPath.freeEnd(chunk, block, end);
    if (free < 0) return free;
    const slot = this.slotFor(tag, chunk);
    if (slot < 0) return slot;
    if (!runPath.mayAcquire(tag)) return Stop.RUN_POOL;
    const run = runPath.acquire(tag);
    if (!core.mayAcquireCopy()) {
      core.image.reservedRun[tag] = run;
      return this.withoutCopy(tag);
    }
    const copy = copyPath.acquireDirect(tag, chunk, block, free, slot);
    runPath.launch(run, tag, RunKind.WRITE_SLOT, chunk, block, free, slot, copy);
    return free;
  }

  private slotFor(tag: number, chunk: number): number {
    const slot = this.core.slotFor(chunk);
    if (slot === Stop.STORE_HUNG) return this.fail(tag, -EIO);
    if (slot !== Stop.SLOTS_DENIED) return slot;
    return this.fail(tag, -this.core.deniedErrno);
  }

  /** No copy is free: waits for one, if one can become free. */
  private withoutCopy(tag: number): number {
    return this.core.copies.isExhausted() ? this.fail(tag, -EIO) : Stop.COPY_POOL;
  }

  private fail(tag: number, error: number): number {
    this.core.image.error[tag] = error;
    return Stop.ERROR;
  }
}
