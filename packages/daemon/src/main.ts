/** blksnapd: prepares the process for a daemon, and only then loads the program. */
import { startOver } from "./start-over.js";

/**
 * Threads for file system calls, of which node has 4 by default: each store that stops answering may occupy one
 * meanwhile. It takes effect when the process executes itself again, and in its children.
 */
const POOL_THREADS = "16";
/** With these options it is neither a daemon nor a supervisor. */
const OTHER_USES = new Set([
  ...["--help", "-h", "--version", "--doctor", "--supervise"],
  ...["--print-config", "--check-config", "--install-units", "--uninstall-units"],
]);

/** Resolves at the end of the process, with an ExitStatus. */
export async function main(args: string[]): Promise<void> {
  const hasPool = process.env["UV_THREADPOOL_SIZE"] !== undefined;
  process.env["UV_THREADPOOL_SIZE"] ??= POOL_THREADS;
  // Node would read certificates at each start, for longer than the rest of its start; nothing here uses TLS.
  delete process.env["NODE_EXTRA_CA_CERTS"];
  const isDaemon = !args.some((arg) => OTHER_USES.has(arg));
  const unprotected = isDaemon ? startOver(hasPool) : undefined;
  const { run } = await import("./program.js");
  await run(args, unprotected);
}
