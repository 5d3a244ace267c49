/** Load by fio, which also verifies what it wrote. */
import { run, start } from "./command.mjs";

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

/** Starts fio beside the test. */
export function startFio(t, filename, options, { timeLimitMs = 120_000 } = {}) {
  const running = start(words(filename, options), { timeLimitMs });
  t.defer(() => {
    running.kill("SIGKILL");
    return running.end();
  });
  return running;
}

/** fio's exit status when it was told to end: it finished what it had begun. */
const INTERRUPTED_STATUS = 128;
/** Where its terse output has the job's error number. */
const ERROR_FIELD = 4;

/** Ends fio and fails if any of its requests failed. */
export async function endFio(running) {
  running.kill("SIGINT");
  const { stdout } = await running.succeed([0, INTERRUPTED_STATUS]);
  const lines = stdout.toString().trim().split("\n");
  const failed = lines.filter((line) => line.split(";")[ERROR_FIELD] !== "0");
  if (lines.length === 0 || failed.length > 0) throw new Error(`fio failed: ${failed.join("\n")}`);
}
