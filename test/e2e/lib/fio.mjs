/** Load by fio, which also verifies its writes. */
import { run, start } from "./command.mjs";
import { until } from "./wait.mjs";

/** Longer than anything that runs in parallel with a load. */
const LOAD_LIMIT_S = 590;
const ARRIVAL_LIMIT_MS = 300_000;
/** A load counts as running from this number of requests on. */
const REQUESTS_UNDER_WAY = 50;

/** Writes of all sizes that fio reads back and checks, until stopped. */
export const VERIFIED_WRITES = {
  ioengine: "io_uring",
  iodepth: 32,
  direct: 1,
  rw: "randwrite",
  bsrange: "4k-64k",
  verify: "crc32c",
  verify_fatal: 1,
  time_based: true,
};

/** @param {Record<string, string | number | true>} options as fio names them */
function words(filename, options) {
  const all = {
    name: "load",
    filename,
    ioengine: "psync",
    thread: true,
    allow_file_create: 0,
    ...options,
  };
  return [
    "fio",
    "--output-format=terse",
    "--minimal",
    ...Object.entries(all).map(([key, value]) =>
      value === true ? `--${key}` : `--${key}=${value}`,
    ),
  ];
}

/** Runs fio to its end; a wrong byte fails it. */
export function fio(filename, options, limits) {
  return run(words(filename, options), limits);
}

/** Starts fio in parallel with the test. */
export function startFio(t, filename, options, { timeLimitMs = (LOAD_LIMIT_S + 10) * 1000 } = {}) {
  const running = start(words(filename, options), { timeLimitMs });
  t.defer(() => {
    running.kill("SIGKILL");
    return running.end();
  });
  return running;
}

/**
 * Starts fio without an end beside the test, and waits until its I/O arrives at the tracked device.
 *
 * @param {{device: string, kind?: "io" | "image_io"}} where on the front or the image
 */
export async function startLoad(t, filename, options, where) {
  const before = await requests(t, where);
  const { runtime = LOAD_LIMIT_S } = options;
  const endless = { time_based: true, ...options, runtime };
  const running = startFio(t, filename, endless, { timeLimitMs: (runtime + 10) * 1000 });
  const arrived = async () => (await requests(t, where)) >= before + REQUESTS_UNDER_WAY;
  await until("fio's requests arrive", arrived, ARRIVAL_LIMIT_MS);
  return running;
}

async function requests(t, { device, kind = "io" }) {
  const { trackers, snapshots } = await t.client.status();
  const members = snapshots.flatMap(({ devices }) => devices);
  const counters = (kind === "io" ? trackers : members).find((entry) => entry.device === device);
  return counters[kind].reads + counters[kind].writes;
}

/** fio's exit status after a request to end: it finished what it had begun. */
const INTERRUPTED_STATUS = 128;
/** A job's line of its terse output, which has the error number in this field. */
const JOB_LINE = "3;fio-";
const ERROR_FIELD = 4;

/** Ends fio and fails if any of its requests failed. */
export async function endFio(running) {
  running.kill("SIGINT");
  const { stdout } = await running.succeed([0, INTERRUPTED_STATUS]);
  const jobs = stdout
    .toString()
    .split("\n")
    .filter((line) => line.startsWith(JOB_LINE));
  const failed = jobs.filter((line) => line.split(";")[ERROR_FIELD] !== "0");
  if (jobs.length === 0 || failed.length > 0) throw new Error(`fio failed: ${stdout}`);
}
