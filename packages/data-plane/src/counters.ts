import type { EngineCounters } from "@blksnap/engine";
import type { AreaCounters } from "./area-counter.js";
import type { DeviceDurations } from "./durations.js";

/** I/O of one ublk device, counted on its reactor; doubles, exact to 2^53. */
export interface DeviceIoCounters {
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly discards: number;
  readonly discardBytes: number;
  readonly flushes: number;
  readonly errors: number;
}

const Count = {
  READS: 0,
  READ_BYTES: 1,
  WRITES: 2,
  WRITE_BYTES: 3,
  DISCARDS: 4,
  DISCARD_BYTES: 5,
  FLUSHES: 6,
  ERRORS: 7,
} as const;

/** The column that counts an operation: READ, WRITE, FLUSH, DISCARD, -, WRITE_ZEROES. */
const PLACE = new Uint8Array([
  Count.READS,
  Count.WRITES,
  Count.FLUSHES,
  Count.DISCARDS,
  Count.ERRORS,
  Count.DISCARDS,
]);

/** Counters of one tracked device. */
export interface TrackedDeviceCounters {
  readonly front: DeviceIoCounters;
  readonly image: DeviceIoCounters;
  /** Bytes of discards that wait for the end of the snapshot. */
  readonly keptDiscardBytes: number;
  /** All counted since attach. */
  readonly engine: EngineCounters;
  readonly durations: DeviceDurations;
  readonly area: AreaCounters;
}

/** Counts without allocating: everything is a field of one Float64Array. */
export class IoCounter {
  readonly #values = new Float64Array(8);

  /** @param lengths lengths in bytes by tag */
  count(op: number, lengths: Float64Array, tag: number, result: number): void {
    const values = this.#values;
    const place = PLACE[op];
    values[place]++;
    if (place < Count.FLUSHES) values[place + 1] += lengths[tag];
    if (result < 0) values[Count.ERRORS]++;
  }

  snapshot(): DeviceIoCounters {
    const values = this.#values;
    return {
      reads: values[Count.READS],
      readBytes: values[Count.READ_BYTES],
      writes: values[Count.WRITES],
      writeBytes: values[Count.WRITE_BYTES],
      discards: values[Count.DISCARDS],
      discardBytes: values[Count.DISCARD_BYTES],
      flushes: values[Count.FLUSHES],
      errors: values[Count.ERRORS],
    };
  }
}
