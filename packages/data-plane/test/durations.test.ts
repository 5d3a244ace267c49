/** Durations go into the bucket in which Prometheus would count them, measured from the same copy's beginning. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CopyDurations, clockStride, DURATION_BOUNDS_US, Durations } from "../dist/durations.js";

class Clock {
  us = 1e9;
  reads = 0;
  stampUs(into: Float64Array, index: number): void {
    this.reads++;
    into[index] = this.us;
  }
}

/** The buckets that are not empty, and their counts. */
function filled(buckets: readonly number[]): [bucket: number, count: number][] {
  return buckets.flatMap((count, bucket) => (count > 0 ? [[bucket, count]] : []));
}

test("each duration is in the first bucket whose end is not below it, and in the sum", () => {
  const last = DURATION_BOUNDS_US.length;
  assert.equal(DURATION_BOUNDS_US.slice(0, 3), [32, 64, 128]);
  assert.is(DURATION_BOUNDS_US.at(-1), 8_388_608);
  const beyond = [8_388_608.5, 2 ** 31 + 5, 2 ** 40];
  for (const tookUs of [0, 0.5, 31, 32, 32.1, 33, 64, 65, 128, 8_388_000, 8_388_608, ...beyond]) {
    const durations = new Durations();
    durations.add(tookUs);
    const bucket = DURATION_BOUNDS_US.findIndex((endUs) => tookUs <= endUs);
    const { buckets, sumUs } = durations.snapshot();
    assert.is(buckets.length, last + 1);
    assert.equal(filled(buckets), [[bucket === -1 ? last : bucket, 1]], String(tookUs));
    assert.is(sumUs, tookUs);
  }
});

test("copies in flight at the same time are distinguished by their ids", () => {
  const clock = new Clock();
  const durations = new CopyDurations(clock, 2, 1);
  durations.begin(0);
  clock.us += 100;
  durations.begin(1);
  clock.us += 40;
  durations.end(1);
  const early = durations.snapshot();
  clock.us += 900;
  durations.end(0);
  assert.equal([filled(early.buckets), early.sumUs], [[[1, 1]], 40]);
  const { buckets, sumUs } = durations.snapshot();
  assert.equal(
    [filled(buckets), sumUs],
    [
      [
        [1, 1],
        [6, 1],
      ],
      1080,
    ],
  );
});

test("with a slow clock, one copy in a stride is timed from its beginning to its end", () => {
  const clock = new Clock();
  const durations = new CopyDurations(clock, 2, 3);
  for (let number = 0; number < 7; number++) {
    durations.begin(1);
    // An untimed copy reuses the id of one that was timed.
    if (number === 3) durations.begin(0);
    clock.us += 100 + number;
    durations.end(1);
    if (number === 3) durations.end(0);
  }
  const { buckets, sumUs } = durations.snapshot();
  assert.equal([filled(buckets), sumUs, clock.reads], [[[2, 3]], 100 + 103 + 105, 6]);
});

test("a clock is slow if its fastest reading is, not because a thread had to wait", () => {
  const clockOf = (readMs: (read: number) => number) => {
    let [ms, reads] = [0, 0];
    return () => {
      ms += readMs(reads++);
      return ms;
    };
  };
  assert.is(clockStride(clockOf(() => 0.0001)), 1);
  assert.is(clockStride(clockOf((read) => (read % 8 === 1 ? 0.0001 : 10))), 1);
  const stride = clockStride(clockOf(() => 0.012));
  assert.ok(stride > 2 * 32, "32 writers read a slow clock in less than half of their turns");
});

test.run();
