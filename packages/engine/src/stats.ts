/** Counters of one tracker, in one Float64Array so that counting beyond 2^31 allocates nothing. */

export const Stat = {
  FRONT_READS: 0,
  FRONT_WRITES: 1,
  FRONT_FLUSHES: 2,
  FRONT_DISCARDS: 3,
  COPIES: 4,
  COPIED_BYTES: 5,
  COPY_RETRIES: 6,
  WAITS: 7,
  LOST_BLOCKS: 8,
  IMAGE_READS: 9,
  IMAGE_WRITES: 10,
  IMAGE_DISCARDS: 11,
  IMAGE_RUNS: 12,
  REREAD_RUNS: 13,
  SLOTS_TAKEN: 14,
  SLOTS_FREED: 15,
  HELD: 16,
  BLOCKED_WRITES: 17,
  REFUSED_WRITES: 18,
  KEPT_DISCARDS: 19,
  SENT_DISCARD_BYTES: 20,
  LATE_IO: 21,
  COPIES_AHEAD: 22,
  COPIES_BEHIND: 23,
  COPIES_RESUMED: 24,
  READS_GONE_BACK: 25,
} as const;

const STAT_COUNT = 26;

export interface EngineCounters {
  /** Requests on the front. `frontDiscards` counts write-zeroes too. */
  frontReads: number;
  frontWrites: number;
  frontFlushes: number;
  frontDiscards: number;
  /** Runs of old data that were copied, their bytes, and retries. */
  copies: number;
  copiedBytes: number;
  copyRetries: number;
  /** Times that a request was parked: on another's copy, on a pool, on slots. */
  waits: number;
  lostBlocks: number;
  imageReads: number;
  imageWrites: number;
  imageDiscards: number;
  /** Parts that image requests were split into, and parts read again from their slot. */
  imageRuns: number;
  rereadRuns: number;
  slotsTaken: number;
  slotsFreed: number;
  /** Front requests that a hold held back. */
  held: number;
  /** Front requests that waited for room, and those refused for lack of it. */
  blockedWrites: number;
  refusedWrites: number;
  /** Discards that were held back, and bytes of them that were issued to the original later. */
  keptDiscards: number;
  sentDiscardBytes: number;
  /** Copies and parts of image requests that passed their bound. */
  lateIo: number;
  /** Copies that included blocks ahead of their write, because it continued a sequence. */
  copiesAhead: number;
  /** Copies that went beside their write, and those that an earlier process had left. */
  copiesBehind: number;
  copiesResumed: number;
  /** Reads of the image that overlapped one of these, and waited for it. */
  readsGoneBack: number;
}

export class EngineStats {
  readonly values: Float64Array = new Float64Array(STAT_COUNT);

  /** The counters by name; a copy. Cold. */
  snapshot(): EngineCounters {
    const of = this.values;
    return {
      frontReads: of[Stat.FRONT_READS],
      frontWrites: of[Stat.FRONT_WRITES],
      frontFlushes: of[Stat.FRONT_FLUSHES],
      frontDiscards: of[Stat.FRONT_DISCARDS],
      copies: of[Stat.COPIES],
      copiedBytes: of[Stat.COPIED_BYTES],
      copyRetries: of[Stat.COPY_RETRIES],
      waits: of[Stat.WAITS],
      lostBlocks: of[Stat.LOST_BLOCKS],
      imageReads: of[Stat.IMAGE_READS],
      imageWrites: of[Stat.IMAGE_WRITES],
      imageDiscards: of[Stat.IMAGE_DISCARDS],
      imageRuns: of[Stat.IMAGE_RUNS],
      rereadRuns: of[Stat.REREAD_RUNS],
      slotsTaken: of[Stat.SLOTS_TAKEN],
      slotsFreed: of[Stat.SLOTS_FREED],
      held: of[Stat.HELD],
      blockedWrites: of[Stat.BLOCKED_WRITES],
      refusedWrites: of[Stat.REFUSED_WRITES],
      keptDiscards: of[Stat.KEPT_DISCARDS],
      sentDiscardBytes: of[Stat.SENT_DISCARD_BYTES],
      lateIo: of[Stat.LATE_IO],
      copiesAhead: of[Stat.COPIES_AHEAD],
      copiesBehind: of[Stat.COPIES_BEHIND],
      copiesResumed: of[Stat.COPIES_RESUMED],
      readsGoneBack: of[Stat.READS_GONE_BACK],
    };
  }
}
