// Runs: parts of image requests, how they start and end.
//
// A run is one contiguous piece of one chunk, all from the original, all from the slot, all zero, or
// all to the slot. Byte positions come from the request: the first and last block of a run are cut
// where the request begins and ends.
import { assert } from "./assert.js";
import type { EngineCore } from "./core.js";
import { NONE } from "./request-queue.js";
import { Stat } from "./stats.js";

export class RunPath {
  private readonly core: EngineCore;

  constructor(core: EngineCore) {
    this.core = core;
  }

  /** A run for image request `tag`: the one it reserved, or a new one. mayTake() must hold. */
  take(tag: number): number {
    const { image, runs } = this.core;
    const reserved = image.reservedRun[tag];
    if (reserved === NONE) return runs.take();
    image.reservedRun[tag] = NONE;
    return reserved;
  }

  mayTake(tag: number): boolean {
    return this.core.image.reservedRun[tag] !== NONE || this.core.mayTakeRun();
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
    const { image, runs, geometry } = this.core;
    let from = start << geometry.blockShift;
    if (chunk === image.beginChunk[tag] && from < image.beginInChunkBytes[tag]) {
      from = image.beginInChunkBytes[tag];
    }
    let to = end << geometry.blockShift;
    if (chunk === image.endChunk[tag] && to > image.endInChunkBytes[tag]) {
      to = image.endInChunkBytes[tag];
    }
    assert(to > from, "run of nothing");
    runs.bind(run, chunk);
    runs.kind[run] = kind;
    runs.tag[run] = tag;
    runs.slot[run] = slot;
    runs.offsetInChunkBytes[run] = from;
    runs.lengthBytes[run] = to - from;
    runs.rangeEndBytes[run] = to;
    const chunksIn = chunk - image.beginChunk[tag];
    runs.bufferOffsetBytes[run] =
      (chunksIn << geometry.chunkShift) + from - image.beginInChunkBytes[tag];
    runs.copy[run] = copy;
    image.pending[tag]++;
    this.core.counters[Stat.IMAGE_RUNS]++;
    this.core.io.submitRun(run);
  }

  /** Ends a run; its request goes on when that was the last thing in flight for it. */
  end(run: number): void {
    const { runs, image, front } = this.core;
    const tag = runs.tag[run];
    runs.free(run);
    image.pending[tag]--;
    if (image.pending[tag] === 0) this.core.wake(front.depth + tag);
  }
}
