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

/** Starts fio beside the test; end it with kill("SIGINT"), on which it finishes what it has begun. */
export function startFio(t, filename, options, { timeLimitMs = 120_000 } = {}) {
  const running = start(words(filename, options), { timeLimitMs });
  t.defer(() => {
    running.kill("SIGKILL");
    return running.end();
  });
  return running;
}
