/**
 * Durations of slow operations of one tracked device, in histograms: copies of old data, for which first writes wait,
 * and takes. Requests that pass through read no clock. If the clock is slow, not every copy reads it.
 */
import type { Reactor } from "@blksnap/uring";

/** log2 of the end of the first bucket, 32 µs; each further one ends at twice as much, the last one has no end. */
const FIRST_SHIFT = 5;
const BUCKETS = 20;
/** Longer durations do not fit into 31 bits, and belong to the last bucket. */
const LONGEST_US = 2 ** 31 - 1;

/** Ends of buckets in microseconds, except for the last one. */
export const DURATION_BOUNDS_US: readonly number[] = Array.from(
  { length: BUCKETS - 1 },
  (_, index) => 2 ** (FIRST_SHIFT + index),
);

export interface DurationCounts {
  /** By bucket, one more than there are bounds. */
  readonly buckets: readonly number[];
  /** Sum of all durations, in microseconds. */
  readonly sumUs: number;
}

/** Counted since attach. */
export interface DeviceDurations {
  /** Timed copies: from the need for the old data until it is stored and recorded, or has failed. */
  readonly copy: DurationCounts;
  /** How long each take held writes. */
  readonly takeStall: DurationCounts;
}

const NONE: DurationCounts = { buckets: new Array<number>(BUCKETS).fill(0), sumUs: 0 };
export const NO_DURATIONS: DeviceDurations = { copy: NONE, takeStall: NONE };

/**
 * Reading the clock takes 0.1 µs. If the kernel has none that can be read without a system call or an exit (User Mode
 * Linux, a virtual machine with an untrusted TSC), two readings are a quarter of a first write.
 */
const SLOW_CLOCK_US = 4;
const CLOCK_TRIALS = 16;
/**
 * With a slow clock, one copy in so many is timed: with 32 writers, in few of the turns. A prime, because a chunk has a
 * power of two of blocks.
 */
const SLOW_CLOCK_STRIDE = 127;

/** One copy in how many is timed on this machine. */
export function clockStride(nowMs: () => number = () => performance.now()): number {
  // The least counts: an interrupted thread says nothing about the clock.
  let leastMs = Number.POSITIVE_INFINITY;
  for (let trial = 0; trial < CLOCK_TRIALS; trial++) {
    const fromMs = nowMs();
    leastMs = Math.min(leastMs, nowMs() - fromMs);
  }
  return leastMs * 1000 < SLOW_CLOCK_US ? 1 : SLOW_CLOCK_STRIDE;
}

/** Counts without allocating. */
export class Durations {
  /** Counts by bucket, followed by the sum. */
  readonly #counts = new Float64Array(BUCKETS + 1);

  add(tookUs: number): void {
    // A duration equal to a bucket's end belongs to that bucket.
    const below = Math.max(Math.ceil(Math.min(tookUs, LONGEST_US)) - 1, 0);
    const bucket = Math.min(32 - Math.clz32(below >>> FIRST_SHIFT), BUCKETS - 1);
    this.#counts[bucket]++;
    this.#counts[BUCKETS] += tookUs;
  }

  snapshot(): DurationCounts {
    return { buckets: [...this.#counts.subarray(0, BUCKETS)], sumUs: this.#counts[BUCKETS] };
  }
}

/** In place of the start of a copy that is not timed. */
const UNTIMED = -1;

/** Durations of the copies of one device, by their ids. */
export class CopyDurations extends Durations {
  readonly #clock: Pick<Reactor, "stampUs">;
  readonly #stride: number;
  readonly #beganUs: Float64Array;
  readonly #nowUs = new Float64Array(1);
  /** Copies before the next one that is timed. */
  #untimedLeft = 0;

  /**
   * @param copiesMax how many can be in flight
   * @param stride one copy in so many is timed, including the first: clockStride()
   */
  constructor(clock: Pick<Reactor, "stampUs">, copiesMax: number, stride: number) {
    super();
    this.#clock = clock;
    this.#stride = stride;
    this.#beganUs = new Float64Array(copiesMax);
  }

  begin(copy: number): void {
    if (this.#untimedLeft > 0) {
      this.#untimedLeft--;
      this.#beganUs[copy] = UNTIMED;
      return;
    }
    this.#untimedLeft = this.#stride - 1;
    this.#clock.stampUs(this.#beganUs, copy);
  }

  end(copy: number): void {
    if (this.#beganUs[copy] === UNTIMED) return;
    this.#clock.stampUs(this.#nowUs, 0);
    this.add(this.#nowUs[0] - this.#beganUs[copy]);
  }
}
