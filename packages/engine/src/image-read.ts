/**
 * Reads of the image: what the device was at the instant of the take.
 *
 *     blocks   | unsaved   | saved in slot | unsaved | lost |
 *     runs     | original  | slot          | original| EIO  |
 *
 * Unsaved blocks at the end of a chunk and at the start of the next one are adjacent in the original: one run reads
 * them. Slots lie anywhere, so saved blocks need a run for each chunk.
 *
 * A run that was read from the original is validated afterwards: a write to the original is issued only after the
 * block's saved bit is set, so a bit that is still clear when the read has ended means that the data is old. Blocks
 * whose bit was set meanwhile are read again from the slot, by the same run, one stretch after the other. While a copy
 * goes behind its write (copies-behind.ts), a clear bit proves nothing: from that block on the request is read again
 * when the copy has ended.
 */
import { BlockState, CopyMode, EIO, RunKind } from "./constants.js";
import { type EngineCore, Stop } from "./core.js";
import { NONE } from "./request-queue.js";
import type { RunPath } from "./run-path.js";
import { Stat } from "./stats.js";

export class ImageReader {
  private readonly core: EngineCore;
  private readonly runPath: RunPath;
  /** The chunk in which the last run ended. */
  private reachedChunk: number = 0;

  constructor(core: EngineCore, runPath: RunPath) {
    this.core = core;
    this.runPath = runPath;
  }

  /** Starts runs from the cursor on: 0 at the end of the request, or what stopped it. */
  pass(tag: number): number {
    const { image, geometry } = this.core;
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
      const reached = this.readRun(tag, chunk, block, limit);
      if (reached < 0) {
        stop = reached;
        break;
      }
      chunk = this.reachedChunk;
      block = reached;
    }
    image.cursorChunk[tag] = chunk;
    image.cursorBlock[tag] = block;
    return stop;
  }

  /**
   * After a read of the original, or of one stretch of it: true if blocks of the run have been saved meanwhile, and the
   * run continues by reading these.
   */
  reread(run: number): boolean {
    const { runs, geometry } = this.core;
    const { chunkBytes, chunkShift, blockBytes, blockShift } = geometry;
    const map = this.core.activeMap();
    let chunk = runs.chunk[run];
    let from = runs.offsetInChunkBytes[run];
    if (runs.kind[run] !== RunKind.READ_ORIGINAL) from += runs.lengthBytes[run];
    let to = runs.rangeEndBytes[run];
    while (from < to) {
      const chunks = from >> chunkShift;
      chunk += chunks;
      from -= chunks << chunkShift;
      to -= chunks << chunkShift;
      this.core.checkLosses(chunk);
      const limit = (Math.min(to, chunkBytes) + blockBytes - 1) >> blockShift;
      const block = map.nextSaved(chunk, from >> blockShift, limit);
      if (this.isBehind(runs.tag[run], chunk, from >> blockShift, block)) return false;
      if (block < limit) return this.rereadFrom(run, chunk, from, to, block, limit);
      from = chunkBytes;
    }
    return false;
  }

  /**
   * Whether a copy that goes behind its write is in flight for some of the unsaved blocks [start, end): the data read
   * there may be new. The request returns there when its runs have ended, and waits on the copy.
   */
  private isBehind(tag: number, chunk: number, start: number, end: number): boolean {
    const { behind, copies, image } = this.core;
    if (behind.count === 0 || start === end) return false;
    const copy = copies.find(chunk, start, end, CopyMode.BEHIND);
    if (copy === NONE) return false;
    this.core.counters[Stat.READS_GONE_BACK]++;
    image.goBack(tag, chunk, Math.max(start, copies.rangeStart[copy]));
    return true;
  }

  /** The blocks from `block` on were saved meanwhile: the rest of the run is [from, to). */
  private rereadFrom(
    run: number,
    chunk: number,
    from: number,
    to: number,
    block: number,
    limit: number,
  ): boolean {
    const { runs, image, geometry } = this.core;
    const map = this.core.activeMap();
    const state = map.stateAt(chunk, block);
    if (state === BlockState.LOST || (state === BlockState.DATA && this.isHung(chunk))) {
      image.error[runs.tag[run]] = -EIO;
      return false;
    }
    const end = map.stateEnd(chunk, block, limit) << geometry.blockShift;
    const start = block << geometry.blockShift;
    const cutStart = Math.max(start, from);
    const cutEnd = Math.min(end, to);
    const chunksOn = chunk - runs.chunk[run];
    runs.bufferOffsetBytes[run] +=
      (chunksOn << geometry.chunkShift) + cutStart - runs.offsetInChunkBytes[run];
    runs.chunk[run] = chunk;
    runs.offsetInChunkBytes[run] = cutStart;
    runs.lengthBytes[run] = cutEnd - cutStart;
    runs.rangeEndBytes[run] = to;
    runs.kind[run] = state === BlockState.DATA ? RunKind.READ_SLOT : RunKind.ZERO;
    runs.slot[run] = map.slotOf(chunk);
    this.core.counters[Stat.REREAD_RUNS]++;
    this.runPath.submit(run);
    return true;
  }

  /** Starts one run at `block`. Returns the block after it, in reachedChunk, or what stopped it. */
  private readRun(tag: number, chunk: number, block: number, limit: number): number {
    const { core, runPath } = this;
    const map = core.activeMap();
    core.checkLosses(chunk);
    const state = map.stateAt(chunk, block);
    const hangs = state === BlockState.DATA && this.isHung(chunk);
    if (state === BlockState.LOST || hangs || core.runs.isExhausted()) {
      core.image.error[tag] = -EIO;
      return Stop.ERROR;
    }
    if (state === BlockState.UNSAVED && core.behind.count > 0) {
      core.stopCopy = core.copies.find(chunk, block, block + 1, CopyMode.BEHIND);
      if (core.stopCopy !== NONE) return Stop.COPY;
    }
    if (!runPath.mayAcquire(tag)) return Stop.RUN_POOL;
    const end = map.stateEnd(chunk, block, limit);
    this.reachedChunk = chunk;
    if (state === BlockState.UNSAVED) return this.readOriginal(tag, chunk, block, end);
    const kind = state === BlockState.DATA ? RunKind.READ_SLOT : RunKind.ZERO;
    runPath.launch(runPath.acquire(tag), tag, kind, chunk, block, end, map.slotOf(chunk), NONE);
    return end;
  }

  /** Reads unsaved blocks from `block` to `end`, and those that follow them in the next chunks. */
  private readOriginal(tag: number, chunk: number, block: number, end: number): number {
    const { core, runPath } = this;
    const { image, geometry } = core;
    const map = core.activeMap();
    const endChunk = image.endChunk[tag];
    let last = chunk;
    let reached = end;
    while (last < endChunk && reached === geometry.blocksPerChunk) {
      const next = last + 1;
      core.checkLosses(next);
      const limit = next === endChunk ? image.endBlock[tag] : geometry.blocksPerChunk;
      const unsaved = map.nextSaved(next, 0, limit);
      if (unsaved === 0) break;
      last = next;
      reached = unsaved;
    }
    runPath.launchOriginal(runPath.acquire(tag), tag, chunk, block, last, reached);
    this.reachedChunk = last;
    return reached;
  }

  /** True if the store of the chunk's slot hangs. */
  private isHung(chunk: number): boolean {
    const area = this.core.area!;
    return area.hungStores !== 0 && area.isHung(area.map.slotOf(chunk));
  }
}
