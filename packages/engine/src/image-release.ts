/**
 * Discards of the image: the reader no longer needs a range.
 *
 * Whole chunks of the range free their slot and are no longer copied; they read as zero from then on, and can be
 * written again. Chunks with I/O in flight, and partial chunks at both ends of the range, stay as they are: a discard
 * may always do less. So do chunks whose store hangs, and those for which the map has no memory. The CBT map does not
 * change, because releasing a range says nothing about the original.
 */
import { type EngineCore, Stop } from "./core.js";
import { NO_SLOT } from "./diff-area-map.js";
import { NONE } from "./request-queue.js";
import { Stat } from "./stats.js";

export class ImageRelease {
  private readonly core: EngineCore;

  constructor(core: EngineCore) {
    this.core = core;
  }

  /**
   * Releases the whole chunks of image request `tag`, which must have been located. Returns 0 when done, or what
   * stopped it: the request then begins again.
   */
  run(tag: number): number {
    const { image, geometry } = this.core;
    let first = image.beginChunk[tag];
    if (image.beginInChunkBytes[tag] !== 0) first++;
    let last = image.endChunk[tag];
    if (image.endInChunkBytes[tag] !== geometry.bytesInChunk(last)) last--;
    for (let chunk = first; chunk <= last; chunk++) {
      const stop = this.core.memoryFor(chunk);
      if (stop === Stop.SLOTS) return stop;
      if (stop === 0) this.releaseChunk(chunk);
    }
    return 0;
  }

  private releaseChunk(chunk: number): void {
    const { copies, runs, geometry, io, counters } = this.core;
    const map = this.core.activeMap();
    const present = map.slotOf(chunk);
    if (map.isReleased(chunk) && present === NO_SLOT) return;
    // Late I/O could still write into the slot when another chunk owns it.
    if (present !== NO_SLOT && this.core.area!.isHung(present)) return;
    if (copies.find(chunk, 0, geometry.blocksPerChunk) !== NONE || runs.isBusy(chunk)) return;
    const slot = map.release(chunk);
    if (slot === NO_SLOT) return;
    counters[Stat.SLOTS_FREED]++;
    io.freeSlot(slot);
  }
}
