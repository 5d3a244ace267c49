/** The command line of blksnap as a process. */
import { watchOutput } from "./output.js";
import { run } from "./run.js";

function untilInterrupted(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    // Only the first one is caught: a second ends the process whatever it waits for.
    process.once(signal, () => controller.abort());
  }
  return controller.signal;
}

/** Runs the command in `argv` (without program names) and sets the process's exit status. */
export async function main(argv: readonly string[]): Promise<void> {
  watchOutput();
  process.exitCode = await run(argv, {
    environment: process.env,
    columns: process.stdout.isTTY ? process.stdout.columns : undefined,
    writeOut: (text) => void process.stdout.write(text),
    writeError: (text) => void process.stderr.write(text),
    untilInterrupted,
  });
}
