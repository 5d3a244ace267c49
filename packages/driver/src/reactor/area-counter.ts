/** What happened since a diff area was attached, and which of its slots are in use. */
import type { DiffArea, EngineCounters } from "@blksnap/engine";

export interface AreaCounters
  extends Pick<EngineCounters, "copiedBytes" | "blockedWrites" | "refusedWrites" | "lateIo"> {
  /** Writes that wait for room at this moment. */
  readonly blockedNow: number;
  /** Slots that hold a chunk. */
  readonly slotsUsed: number;
  /** Slots that wait for a chunk, as extents: first slot and count, in turn. */
  readonly spareExtents: readonly number[];
}

export const NO_AREA: AreaCounters = {
  copiedBytes: 0,
  blockedWrites: 0,
  blockedNow: 0,
  refusedWrites: 0,
  lateIo: 0,
  slotsUsed: 0,
  spareExtents: [],
};

export class AreaCounter {
  readonly #area: DiffArea;
  readonly #before: EngineCounters;
  /** Slots in use when the area was attached: those of an earlier daemon. */
  #slotsBefore = 0;

  constructor(area: DiffArea, before: EngineCounters) {
    this.#area = area;
    this.#before = before;
    area.forEachUsedSlot(() => this.#slotsBefore++);
  }

  snapshot(now: EngineCounters): AreaCounters {
    const before = this.#before;
    const spareExtents: number[] = [];
    this.#area.slots.forEachExtent((firstSlot, count) => spareExtents.push(firstSlot, count));
    return {
      copiedBytes: now.copiedBytes - before.copiedBytes,
      blockedWrites: now.blockedWrites - before.blockedWrites,
      blockedNow: this.#area.blockedWrites,
      refusedWrites: now.refusedWrites - before.refusedWrites,
      lateIo: now.lateIo - before.lateIo,
      slotsUsed:
        this.#slotsBefore + now.slotsTaken - before.slotsTaken - now.slotsFreed + before.slotsFreed,
      spareExtents,
    };
  }
}
