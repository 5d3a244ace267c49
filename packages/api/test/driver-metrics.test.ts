/** Histograms in Prometheus's form: cumulative buckets in base units, the last one without a bound. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { driverMetrics, type StatusResponse, type TrackerStatus } from "../dist/index.js";

const io = {
  reads: 0,
  read_bytes: 0,
  writes: 0,
  write_bytes: 0,
  discards: 0,
  flushes: 0,
  errors: 0,
};

function statusOf(device: string, durations: TrackerStatus["durations"]): StatusResponse {
  const tracker = { device, durations, io, splice: null, persistence: {}, cbt: {} };
  const configuration = { mistakes: [], missing: [] };
  const none = { reactors: [], waiting: [], untracked: [], snapshots: [] };
  const all = { daemon: { configuration }, ...none };
  return { ...all, trackers: [tracker] } as unknown as StatusResponse;
}

test("a bucket counts all durations up to its bound", () => {
  const status = statusOf("/dev/sdb", {
    bounds_us: [32, 64],
    copy: { buckets: [3, 0, 2], sum_us: 2_500_000 },
    take_stall: { buckets: [0, 1, 0], sum_us: 50 },
  });
  const of = (name: string) => {
    const family = driverMetrics(status).find((one) => one.name === name);
    assert.is(family?.type, "histogram");
    return family?.samples.map(({ suffix, labels, value }) => [suffix, labels?.["le"], value]);
  };
  assert.equal(of("blksnap_front_copy_seconds"), [
    ["_bucket", "0.000032", 3],
    ["_bucket", "0.000064", 3],
    ["_bucket", "+Inf", 5],
    ["_sum", undefined, 2.5],
    ["_count", undefined, 5],
  ]);
  assert.equal(of("blksnap_front_take_stall_seconds")?.at(-2), ["_sum", undefined, 0.00005]);
  const { samples = [] } =
    driverMetrics(status).find(({ name }) => name.includes("copy_seconds")) ?? {};
  assert.ok(samples.every(({ labels }) => labels?.["device"] === "/dev/sdb"));
});

test.run();
