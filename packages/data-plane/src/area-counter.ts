/** Counts what happened since a diff area was attached, and which of its slots are in use. */
import type { DiffArea, EngineCounters } from "@blksnap/engine";
import type { AreaId } from "./area-id.js";

export interface AreaCounters
  extends Pick<EngineCounters, "copiedBytes" | "blockedWrites" | "refusedWrites" | "lateIo"> {
  /** The area; null without one. */
  readonly id: AreaId | null;
  /** Writes that wait for room now. */
  readonly blockedNow: number;
  /** Slots that hold a chunk. */
  readonly slotsUsed: number;
  /** Slots granted and not used yet, as extents: first slot and count, alternating. */
  readonly spareExtents: readonly number[];
  readonly lostBytes: number;
  /** Number of lost ranges. */
  readonly lostRanges: number;
}

/** Counts of an area that an earlier daemon has left. */
export interface AreaFigures {
  readonly slotsUsed: number;
  readonly lostBlocks: number;
  readonly lostRanges: number;
}

export const NO_AREA: AreaCounters = {
  id: null,
  copiedBytes: 0,
  blockedWrites: 0,
  blockedNow: 0,
  refusedWrites: 0,
  lateIo: 0,
  slotsUsed: 0,
  spareExtents: [],
  lostBytes: 0,
  lostRanges: 0,
};

export class AreaCounter {
  readonly #area: DiffArea;
  readonly #before: EngineCounters;
  readonly #figures: AreaFigures | undefined;

  /** @param figures counts of the area, if an earlier daemon has left it */
  constructor(area: DiffArea, before: EngineCounters, figures?: AreaFigures) {
    this.#area = area;
    this.#before = before;
    this.#figures = figures;
    if (figures !== undefined) area.map.losses.reset(figures.lostBlocks, figures.lostRanges);
  }

  snapshot(now: EngineCounters): Omit<AreaCounters, "id"> {
    const before = this.#before;
    const { losses } = this.#area.map;
    const slotsBefore = this.#figures?.slotsUsed ?? 0;
    const spareExtents: number[] = [];
    this.#area.slots.forEachExtent((firstSlot, count) => spareExtents.push(firstSlot, count));
    return {
      copiedBytes: now.copiedBytes - before.copiedBytes,
      blockedWrites: now.blockedWrites - before.blockedWrites,
      blockedNow: this.#area.blockedWrites,
      refusedWrites: now.refusedWrites - before.refusedWrites,
      lateIo: now.lateIo - before.lateIo,
      slotsUsed:
        slotsBefore + now.slotsTaken - before.slotsTaken - now.slotsFreed + before.slotsFreed,
      spareExtents,
      lostBytes: losses.bytes,
      lostRanges: losses.ranges,
    };
  }
}
