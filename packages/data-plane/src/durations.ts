/**
 * How long what is slow anyway takes, of one tracked device, in histograms: copies of old data, for which first writes
 * wait, and takes. Requests that pass through read no clock.
 */
import type { Reactor } from "@blksnap/uring";

/** The first bucket is up to 32 µs, each other one up to twice as much, and the last one has no end. */
const FIRST_SHIFT = 5;
const BUCKETS = 20;
/** What does not fit into 31 bits is in the last bucket by far. */
const LONGEST_US = 2 ** 31 - 1;

/** Ends of buckets in microseconds, but for the last one. */
export const DURATION_BOUNDS_US: readonly number[] = Array.from(
  { length: BUCKETS - 1 },
  (_, index) => 2 ** (FIRST_SHIFT + index),
);

export interface DurationCounts {
  /** By bucket, one more than there are bounds. */
  readonly buckets: readonly number[];
  /** Of all, in microseconds. */
  readonly sumUs: number;
}

/** Since attach. */
export interface DeviceDurations {
  /** Old data, from the need for it until it is in the store and on record, or has failed. */
  readonly copy: DurationCounts;
  /** Writes stood for so long, at each take. */
  readonly takeStall: DurationCounts;
}

const NONE: DurationCounts = { buckets: new Array<number>(BUCKETS).fill(0), sumUs: 0 };
export const NO_DURATIONS: DeviceDurations = { copy: NONE, takeStall: NONE };

/** Counts without allocating. */
export class Durations {
  /** By bucket, with the sum of all behind them. */
  readonly #counts = new Float64Array(BUCKETS + 1);

  add(tookUs: number): void {
    // A time that is a bucket's end belongs into that bucket.
    const below = Math.max(Math.ceil(Math.min(tookUs, LONGEST_US)) - 1, 0);
    const bucket = Math.min(32 - Math.clz32(below >>> FIRST_SHIFT), BUCKETS - 1);
    this.#counts[bucket]++;
    this.#counts[BUCKETS] += tookUs;
  }

  snapshot(): DurationCounts {
    return { buckets: [...this.#counts.subarray(0, BUCKETS)], sumUs: this.#counts[BUCKETS] };
  }
}

/** Of the copies of one device, by their numbers. */
export class CopyDurations extends Durations {
  readonly #clock: Pick<Reactor, "stampUs">;
  readonly #beganUs: Float64Array;
  readonly #nowUs = new Float64Array(1);

  /** @param copiesMax how many can be under way */
  constructor(clock: Pick<Reactor, "stampUs">, copiesMax: number) {
    super();
    this.#clock = clock;
    this.#beganUs = new Float64Array(copiesMax);
  }

  begin(copy: number): void {
    this.#clock.stampUs(this.#beganUs, copy);
  }

  end(copy: number): void {
    this.#clock.stampUs(this.#nowUs, 0);
    this.add(this.#nowUs[0] - this.#beganUs[copy]);
  }
}
