/**
 * Runs: parts of image requests, how they start and end.
 *
 * A run is one contiguous piece of a chunk: all from the slot, all zero, or all to the slot; or a piece of the
 * original, which may span chunks. Byte positions come from the request: the first and the last block of a run are cut
 * where the request begins and ends.
 */
import { assert } from "./assert.js";
import { EIO, RunKind } from "./constants.js";
import { AreaPhase, type EngineCore } from "./core.js";
import { NO_SLOT } from "./diff-area-map.js";
import { IoStage, IoState } from "./io-state.js";
import { NONE } from "./request-queue.js";
import { Stat } from "./stats.js";

export class RunPath {
  private readonly core: EngineCore;

  constructor(core: EngineCore) {
    this.core = core;
  }

  /** A run for image request `tag`: the one it reserved, or a new one. mayAcquire() must hold. */
  acquire(tag: number): number {
    const { image, runs } = this.core;
    const reserved = image.reservedRun[tag];
    if (reserved === NONE) return runs.acquire();
    image.reservedRun[tag] = NONE;
    return reserved;
  }

  mayAcquire(tag: number): boolean {
    return this.core.image.reservedRun[tag] !== NONE || this.core.mayAcquireRun();
  }

  /** Starts `run` over blocks [start, end) of the chunk, cut to the request. */
  launch(
    run: number,
    tag: number,
    kind: number,
    chunk: number,
    start: number,
    end: number,
    slot: number,
    copy: number,
  ): void {
    this.place(run, tag, chunk, start, chunk, end);
    const { runs } = this.core;
    runs.kind[run] = kind;
    runs.slot[run] = slot;
    runs.copy[run] = copy;
    this.submit(run);
  }

  /** Starts `run` as a read of the original from block `start` of `chunk` to block `end` of `lastChunk`. */
  launchOriginal(
    run: number,
    tag: number,
    chunk: number,
    start: number,
    lastChunk: number,
    end: number,
  ): void {
    this.place(run, tag, chunk, start, lastChunk, end);
    const { runs } = this.core;
    runs.kind[run] = RunKind.READ_ORIGINAL;
    runs.slot[run] = NO_SLOT;
    runs.copy[run] = NONE;
    this.submit(run);
  }

  private place(
    run: number,
    tag: number,
    chunk: number,
    start: number,
    lastChunk: number,
    end: number,
  ): void {
    const { image, runs, geometry } = this.core;
    let from = start << geometry.blockShift;
    if (chunk === image.beginChunk[tag] && from < image.beginInChunkBytes[tag]) {
      from = image.beginInChunkBytes[tag];
    }
    let to = end << geometry.blockShift;
    if (lastChunk === image.endChunk[tag] && to > image.endInChunkBytes[tag]) {
      to = image.endInChunkBytes[tag];
    }
    to += (lastChunk - chunk) << geometry.chunkShift;
    assert(to > from, "run of nothing");
    runs.bind(run, chunk, lastChunk);
    runs.tag[run] = tag;
    runs.offsetInChunkBytes[run] = from;
    runs.lengthBytes[run] = to - from;
    runs.rangeEndBytes[run] = to;
    const chunksIn = chunk - image.beginChunk[tag];
    runs.bufferOffsetBytes[run] =
      (chunksIn << geometry.chunkShift) + from - image.beginInChunkBytes[tag];
    image.pending[tag]++;
    this.core.counters[Stat.IMAGE_RUNS]++;
  }

  /** Asks the host for the run's I/O. */
  submit(run: number): void {
    const { runs, ioTicks, io } = this.core;
    runs.stage[run] = readsOriginal(runs.kind[run]) ? IoStage.READING : IoStage.STORING;
    runs.since[run] = ioTicks;
    io.submitRun(run);
  }

  /** The run's bound has passed: its request ends with an error, without it. */
  setLate(run: number): void {
    const { core } = this;
    const tag = core.runs.tag[run];
    core.noteLate(core.runs.slot[run]);
    core.image.error[tag] = -EIO;
    core.io.onRunLate(run);
    core.runs.setLate(run);
    core.image.pending[tag]--;
    if (core.image.pending[tag] === 0) core.wake(core.front.depth + tag);
  }

  /** The answer to a late run. */
  endLate(run: number): void {
    const { core } = this;
    const isOfArea = core.runs.state[run] === IoState.LATE;
    if (isOfArea && core.phase === AreaPhase.ACTIVE) core.noteAnswered(core.runs.slot[run]);
    core.runs.free(run);
  }

  /** The area is closed: results of late runs are no longer wanted. */
  orphan(): void {
    const { state, size } = this.core.runs;
    for (let run = 0; run < size; run++) {
      if (state[run] === IoState.LATE) state[run] = IoState.ORPHANED;
    }
  }
}

/** True as well for runs without I/O. */
function readsOriginal(kind: number): boolean {
  return kind === RunKind.READ_ORIGINAL || kind === RunKind.ZERO;
}
