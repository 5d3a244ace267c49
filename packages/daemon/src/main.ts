/** blksnapd: makes the process what a daemon's has to be, and only then loads the program. */
import { startOverAsIoFlusher } from "./start-over.js";

/**
 * Threads for calls on files, where node has 4: each store that stops answering may keep one for as long as
 * that lasts. It counts from when the process starts over, and for processes that it starts.
 */
const POOL_THREADS = "16";
/** With these it is not a daemon, or one that starts daemons. */
const OTHER_USES = new Set([
  ...["--help", "-h", "--version", "--doctor", "--supervise"],
  ...["--print-config", "--check-config", "--install-units", "--uninstall-units"],
]);

/** Ends with the process, with an ExitStatus. */
export async function main(args: string[]): Promise<void> {
  process.env["UV_THREADPOOL_SIZE"] ??= POOL_THREADS;
  // Node reads them at each start, for longer than the rest of its start takes; nothing here speaks TLS.
  delete process.env["NODE_EXTRA_CA_CERTS"];
  const isDaemon = !args.some((arg) => OTHER_USES.has(arg));
  const unprotected = isDaemon ? startOverAsIoFlusher() : undefined;
  const { run } = await import("./program.js");
  await run(args, unprotected);
}
