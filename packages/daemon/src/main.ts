/** blksnapd: what it is started for. */

import type { DriverOptions } from "@blksnap/driver";
import { DAEMON_VERSION } from "@blksnap/driver";
import { becomeIoFlusher } from "@blksnap/uring";
import type { Logger } from "pino";
import { ExitStatus } from "./exit-status.js";
import {
  driverOptions,
  makeLogger,
  parseOptions,
  socketPathOf,
  standbysOf,
  type Values,
} from "./options.js";
import { prepareProcess, startOverAsIoFlusher } from "./process-setup.js";
import { supervise } from "./supervisor.js";
import { usage } from "./usage.js";

/**
 * Threads for calls on files, where node has 4: each store that stops answering may keep one for as long as
 * that lasts. It counts from when the process starts over, and for processes that it starts.
 */
const POOL_THREADS = "16";

/** Ends with the process, with an ExitStatus. */
export async function main(args: string[]): Promise<void> {
  process.env["UV_THREADPOOL_SIZE"] ??= POOL_THREADS;
  let values: Values;
  let logger: Logger;
  let options: DriverOptions;
  let standbys: number;
  try {
    values = parseOptions(args);
    logger = makeLogger(values);
    options = driverOptions(values, logger);
    socketPathOf(values);
    standbys = standbysOf(values);
  } catch (error) {
    const [why = ""] = (error as Error).message.split("\n");
    console.error(`blksnapd: ${why.replace(/\.$/, "")}. See blksnapd --help`);
    process.exitCode = ExitStatus.USAGE;
    return;
  }
  if (values.help === true) {
    process.stdout.write(usage());
    return;
  }
  if (values.version === true) {
    console.log(DAEMON_VERSION);
    return;
  }
  if (values.doctor === true) {
    const { examineFor } = await import("./doctor/doctor.js");
    const given = { socketPath: socketPathOf(values), fix: values.fix === true };
    console.log(JSON.stringify(await examineFor(options, given)));
    return;
  }
  if (values.supervise === true) {
    // Daemons inherit the mark, so that none starts over for it: after a crash users wait for a start. Nor may
    // who starts them wait for their devices.
    becomeIoFlusher();
    const daemonArgs = args.filter((arg) => arg !== "--supervise");
    process.exit(await supervise(daemonArgs, standbys, logger));
  }
  const problem = startOverAsIoFlusher();
  if (problem !== undefined) logger.warn({ problem }, "not all threads are protected");
  prepareProcess(logger);
  // A supervisor, which lives beside two daemons, needs nothing of the driver.
  const { serve } = await import("./serve.js");
  await serve(values, options, logger);
}
