/** The process of the command line. */
import { writeSync } from "node:fs";
import { isatty } from "node:tty";
import { watchOutput } from "./output.js";
import { run } from "./run.js";

let interruption: NodeJS.Signals | undefined;
let isOutputLeft = false;

function untilInterrupted(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    // Only the first one is caught: a second one ends the process even while it waits.
    process.once(signal, () => {
      interruption = signal;
      controller.abort();
    });
  }
  return controller.signal;
}

/** Waits for standard output, so that a command knows in time if it has to undo what it cannot report. */
function writeOutNow(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(process.stdout.fd, bytes, at);
    } catch (error) {
      // A full non-blocking pipe.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  }
}

/** Runs the command in `argv` (without program names) and sets the process's exit status. */
export async function main(argv: readonly string[]): Promise<void> {
  const output = watchOutput();
  const status = await run(argv, {
    environment: process.env,
    columns: process.stdout.isTTY ? process.stdout.columns : undefined,
    isAttended: process.stderr.isTTY === true && process.env["TERM"] !== "dumb",
    errorColumns: process.stderr.columns,
    writeOutNow,
    writeOut: (text) => void process.stdout.write(text),
    writeError: (text) => void process.stderr.write(text),
    untilInterrupted,
    outliveOutput: output.outlive,
    streams: {
      outFd: process.stdout.fd,
      isInTerminal: isatty(0),
      isOutTerminal: isatty(process.stdout.fd),
      leaveOutput: () => {
        isOutputLeft = true;
      },
      input: () => process.stdin,
    },
  });
  process.exitCode = output.statusOf(status);
  // A thread waits for the reader of standard output, and a normal exit would wait for that thread.
  if (isOutputLeft && interruption !== undefined) process.kill(process.pid, interruption);
}
