/**
 * How long what is slow anyway takes, of one tracked device, in histograms: copies of old data, for which first writes
 * wait, and takes. Requests that pass through read no clock. If the clock is slow, not every copy reads it.
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
  /** Old data, from the need for it until it is in the store and on record, or has failed; of the copies that were timed. */
  readonly copy: DurationCounts;
  /** Writes stood for so long, at each take. */
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
/** With a slow clock, one copy of so many is timed. A prime, because a chunk has a power of two of blocks. */
const SLOW_CLOCK_STRIDE = 13;

/** One copy of how many is timed on this machine. */
export function clockStride(nowMs: () => number = () => performance.now()): number {
  // The least counts: a thread that was interrupted says nothing about the clock.
  let leastMs = Number.POSITIVE_INFINITY;
  for (let trial = 0; trial < CLOCK_TRIALS; trial++) {
    const fromMs = nowMs();
    leastMs = Math.min(leastMs, nowMs() - fromMs);
  }
  return leastMs * 1000 < SLOW_CLOCK_US ? 1 : SLOW_CLOCK_STRIDE;
}

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

/** In place of the time at which a copy began that is not timed. */
const UNTIMED = -1;

/** Of the copies of one device, by their numbers. */
export class CopyDurations extends Durations {
  readonly #clock: Pick<Reactor, "stampUs">;
  readonly #stride: number;
  readonly #beganUs: Float64Array;
  readonly #nowUs = new Float64Array(1);
  /** Copies that begin before the next one that is timed. */
  #untimedLeft = 0;

  /**
   * @param copiesMax how many can be under way
   * @param stride one copy of so many is timed, the first one among them: clockStride()
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
