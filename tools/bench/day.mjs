// A database's day, shortened: 24 hours of fio's load at full speed, and a snapshot taken at the end of each, as a
// backup would. `--seconds` is what an hour takes here.
import { setTimeout as sleep } from "node:timers/promises";
import { makeCandidate } from "./candidates.mjs";
import { named } from "./costs.mjs";
import { fioJobs } from "./fio.mjs";

const HOURS = 24;
const MIB = 2 ** 20;
const NS_PER_MS = 1e6;
const PAGE_BYTES = 8192;
/** Tables, of which few pages are used most; and behind them a log, each of whose records is synced. */
const TABLES_BYTES = 192 * MIB;
const LOG_BYTES = 32 * MIB;

const LOADS = [
  { name: "day: reads and writes of tables, per s", key: "pagesPerS", isMoreBetter: true },
  { name: "day: synced records of the log, per s", key: "recordsPerS", isMoreBetter: true },
  { name: "day: 99.9 % of writes to tables end within, ms", key: "writeMs" },
  { name: "day: longest write to a table, ms", key: "longestWriteMs" },
  { name: "day: longest time for a snapshot in place of the last, ms", key: "longestNextMs" },
  { name: "day: old data copied in an hour, MiB", key: "copiedMib" },
  { name: "day: changed in an hour by the map, MiB", key: "changedMib" },
];

function loadOf(path, hourS) {
  const common = [
    `--filename=${path}`,
    "--ioengine=io_uring",
    "--direct=1",
    `--bs=${PAGE_BYTES}`,
    "--time_based",
    `--runtime=${HOURS * hourS}`,
  ];
  const tables = [
    "--rw=randrw",
    "--rwmixread=70",
    "--random_distribution=zipf:1.1",
    "--iodepth=16",
  ];
  const log = ["--rw=write", "--iodepth=1", "--fdatasync=1", `--offset=${TABLES_BYTES}`];
  return [
    ...["--name=tables", ...common, ...tables, "--norandommap", `--size=${TABLES_BYTES}`],
    ...["--name=log", ...common, ...log, `--size=${LOG_BYTES}`],
  ];
}

function reached([tables, log]) {
  return {
    pagesPerS: tables.read.iops + tables.write.iops,
    recordsPerS: log.write.iops,
    writeMs: tables.write.clat_ns.percentile["99.900000"] / NS_PER_MS,
    longestWriteMs: tables.write.clat_ns.max / NS_PER_MS,
  };
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Of the hours' snapshots; a candidate that takes none has none of these. */
function ofTakes(hours) {
  if (hours.length === 0) return {};
  const known = (key) => hours.map((hour) => hour[key]).filter((value) => value !== undefined);
  const [copied, changed] = [known("copiedBytes"), known("changedBytes")];
  return {
    longestNextMs: Math.max(...known("nextMs")),
    ...(copied.length > 0 && { copiedMib: mean(copied) / MIB }),
    ...(changed.length > 0 && { changedMib: mean(changed) / MIB }),
  };
}

async function measureDay(candidate, { runtimeS }) {
  const made = await makeCandidate(candidate, TABLES_BYTES + LOG_BYTES);
  const hours = [];
  let ended;
  try {
    let isOver = false;
    const load = fioJobs(loadOf(made.self.path, runtimeS)).finally(() => {
      isOver = true;
    });
    // Awaited below. Where a snapshot fails before that, nothing is ended under it.
    ended = load.catch(() => undefined);
    const hourMs = runtimeS * 1000;
    const beganMs = performance.now();
    // The first hour belongs to the snapshot with which the candidate began.
    for (let hour = 1; made.next !== undefined && hour < HOURS && !isOver; hour++) {
      await sleep(Math.max(0, beganMs + hour * hourMs - performance.now()));
      const sinceMs = performance.now();
      const told = await made.next();
      hours.push({ ...told, nextMs: performance.now() - sinceMs });
    }
    return named(LOADS, { ...reached(await load), ...ofTakes(hours) });
  } finally {
    await ended;
    await made.end();
  }
}

export const DAY_GROUP = {
  candidates: ["front", "front, snapshot", "dm-snapshot P 8", "dm-snapshot P 128"],
  reference: "front",
  loads: LOADS,
  measure: measureDay,
  unit: "each as it says",
};
