/** A driver's counters for Prometheus, one row per metric, all from status(). */
import type { MetricFamily, MetricSample } from "./metric-family.js";
import type {
  ReactorStatus,
  SnapshotDeviceStatus,
  SnapshotStatus,
  StatusResponse,
  TrackerStatus,
} from "./types.js";

type Row<Of> = readonly [
  name: string,
  help: string,
  type: "counter" | "gauge",
  value: (of: Of) => number,
];

const TRACKER_ROWS: readonly Row<TrackerStatus>[] = [
  ["front_live", "0: another program has ended the front.", "gauge", (of) => Number(of.front_live)],
  [
    "splice_lost",
    "1: its node no longer leads to the front, and writes were missed.",
    "gauge",
    ({ splice }) => Number(splice?.state === "lost"),
  ],
  ["front_capacity_bytes", "Size of the front.", "gauge", (of) => of.capacity_bytes],
  ["original_capacity_bytes", "Size of the original.", "gauge", (of) => of.original_capacity_bytes],
  [
    "tracker_persistence_failed",
    "1: the map will not survive the daemon, although that was requested.",
    "gauge",
    ({ persistence }) => Number(persistence.state === "failed"),
  ],
  [
    "cbt_number",
    "Number of the last take in this generation.",
    "gauge",
    (of) => of.cbt.changes_number,
  ],
  ["front_reads_total", "Reads through the front.", "counter", ({ io }) => io.reads],
  ["front_read_bytes_total", "Bytes read through the front.", "counter", ({ io }) => io.read_bytes],
  ["front_writes_total", "Writes through the front.", "counter", ({ io }) => io.writes],
  [
    "front_write_bytes_total",
    "Bytes written through the front.",
    "counter",
    ({ io }) => io.write_bytes,
  ],
  ["front_discards_total", "Discards and write-zeroes.", "counter", ({ io }) => io.discards],
  [
    "kept_discard_bytes",
    "Discarded under a snapshot; sent to the original when the snapshot is gone.",
    "gauge",
    (of) => of.kept_discard_bytes,
  ],
  ["front_flushes_total", "Flushes through the front.", "counter", ({ io }) => io.flushes],
  ["front_errors_total", "Requests of the front that failed.", "counter", ({ io }) => io.errors],
];

const DEVICE_ROWS: readonly Row<SnapshotDeviceStatus>[] = [
  ["copied_bytes_total", "Old data saved to the diff storage.", "counter", (of) => of.copied_bytes],
  [
    "image_failed",
    "1: the image has lost blocks, or its device.",
    "gauge",
    (of) => Number(of.error_code !== 0),
  ],
  ["lost_bytes", "Old data that could not be saved.", "gauge", (of) => of.lost_bytes],
  ["blocked_writes_total", "Writes that waited for space.", "counter", (of) => of.blocked_writes],
  ["writes_waiting", "Writes that wait for space.", "gauge", (of) => of.blocked_writes_now],
  ["late_io_total", "I/O that a store did not answer in time.", "counter", (of) => of.late_io],
  [
    "refused_writes_total",
    "Writes refused for lack of space.",
    "counter",
    (of) => of.refused_writes,
  ],
  [
    "image_read_bytes_total",
    "Bytes read from the image.",
    "counter",
    (of) => of.image_io.read_bytes,
  ],
  [
    "image_errors_total",
    "Requests of the image that failed.",
    "counter",
    (of) => of.image_io.errors,
  ],
];

const SNAPSHOT_ROWS: readonly Row<SnapshotStatus>[] = [
  ["diff_storage_used_bytes", "Diff storage in use.", "gauge", (of) => of.used_bytes],
  [
    "diff_storage_granted_bytes",
    "Diff storage granted to devices.",
    "gauge",
    (of) => of.granted_bytes,
  ],
  ["diff_storage_allocated_bytes", "Diff storage allocated.", "gauge", (of) => of.allocated_bytes],
  ["diff_storage_limit_bytes", "Limit of the diff storage.", "gauge", (of) => of.limit_bytes],
  [
    "diff_storage_hung_stores",
    "Stores that do not answer.",
    "gauge",
    (of) => of.stores.filter(({ hung }) => hung).length,
  ],
  [
    "take_stall_seconds",
    "Time that writers waited at take.",
    "gauge",
    (of) => (of.stall_us ?? 0) / 1e6,
  ],
];

const REACTOR_ROWS: readonly Row<ReactorStatus>[] = [
  ["reactor_devices", "Devices that the reactor serves.", "gauge", (of) => of.devices],
  [
    "reactor_stalled_seconds",
    "How long the reactor has been stalled.",
    "gauge",
    (of) => of.stalled_ms / 1000,
  ],
  ["reactor_stalls_total", "How often the reactor has stalled.", "counter", (of) => of.stalls],
];

type DurationRow = readonly [name: string, help: string, of: "copy" | "take_stall"];

const DURATION_ROWS: readonly DurationRow[] = [
  [
    "front_copy_seconds",
    "Copies of old data, for which first writes through the front wait.",
    "copy",
  ],
  [
    "front_take_stall_seconds",
    "Takes, by the time that writes through the front waited.",
    "take_stall",
  ],
];

/** Prometheus's buckets are cumulative: each counts all durations up to its bound. */
function durationSamples({ device, durations }: TrackerStatus, of: DurationRow[2]): MetricSample[] {
  const { buckets, sum_us: sumUs } = durations[of];
  let count = 0;
  const samples = buckets.map((value, index): MetricSample => {
    count += value;
    const boundUs = durations.bounds_us[index];
    const le = boundUs === undefined ? "+Inf" : String(boundUs / 1e6);
    return { labels: { device, le }, value: count, suffix: "_bucket" };
  });
  return [
    ...samples,
    { labels: { device }, value: sumUs / 1e6, suffix: "_sum" },
    { labels: { device }, value: count, suffix: "_count" },
  ];
}

function durationFamilies(trackers: readonly TrackerStatus[]): MetricFamily[] {
  return DURATION_ROWS.map(([name, help, of]) => ({
    name: `blksnap_${name}`,
    help,
    type: "histogram",
    samples: trackers.flatMap((tracker) => durationSamples(tracker, of)),
  }));
}

interface Labelled<Of> {
  readonly labels: Readonly<Record<string, string>>;
  readonly of: Of;
}

function families<Of>(rows: readonly Row<Of>[], objects: readonly Labelled<Of>[]): MetricFamily[] {
  return rows.map(([name, help, type, value]) => ({
    name: `blksnap_${name}`,
    help,
    type,
    samples: objects.map(({ labels, of }) => ({ labels, value: value(of) })),
  }));
}

/** Metrics that exist once, whatever is tracked. */
function daemonFamilies({ daemon, waiting, untracked }: StatusResponse): MetricFamily[] {
  const { version, kernel } = daemon;
  return [
    {
      name: "blksnap_build_info",
      help: "1, with the versions of the daemon and of the kernel.",
      type: "gauge",
      samples: [{ labels: { version, kernel }, value: 1 }],
    },
    {
      name: "blksnap_waiting_fronts",
      help: "Fronts of an earlier daemon that cannot be resumed yet: their users wait.",
      type: "gauge",
      samples: [{ value: waiting.length }],
    },
    {
      name: "blksnap_untracked_volumes",
      help: "Volumes of a live attach that are not tracked until they can be attached again.",
      type: "gauge",
      samples: [{ value: untracked.length }],
    },
    {
      name: "blksnap_configuration_failed",
      help: "1: the configuration files have mistakes, and an earlier configuration is in force.",
      type: "gauge",
      samples: [{ value: Number(daemon.configuration.mistakes.length > 0) }],
    },
    {
      name: "blksnap_configured_devices_waiting",
      help: "Configured devices that are not attached: still waited for, or given up.",
      type: "gauge",
      samples: [{ value: daemon.configuration.missing.length }],
    },
  ];
}

export function driverMetrics(status: StatusResponse): MetricFamily[] {
  const { reactors, trackers, snapshots } = status;
  return [
    ...daemonFamilies(status),
    ...families(
      REACTOR_ROWS,
      reactors.map((of) => ({ labels: { reactor: String(of.index) }, of })),
    ),
    ...families(
      TRACKER_ROWS,
      trackers.map((of) => ({ labels: { device: of.device }, of })),
    ),
    ...durationFamilies(trackers),
    ...families(
      DEVICE_ROWS,
      snapshots.flatMap(({ id, devices }) =>
        devices.map((of) => ({ labels: { snapshot: id, device: of.device }, of })),
      ),
    ),
    ...families(
      SNAPSHOT_ROWS,
      snapshots.map((of) => ({ labels: { snapshot: of.id }, of })),
    ),
  ];
}
