/** What blksnapd is started for: a daemon, its supervisor, the doctor. */

import type { DriverOptions } from "@blksnap/driver";
import { DAEMON_VERSION } from "@blksnap/driver/version";
import { becomeIoFlusher } from "@blksnap/uring";
import type { Logger } from "pino";
import { ExitStatus } from "./exit-status.js";
import {
  driverOptions,
  makeLogger,
  metricsSocketPathOf,
  parseOptions,
  socketPathOf,
  standbysOf,
  type Values,
} from "./options.js";
import { prepareProcess } from "./process-setup.js";
import { startOverAsIoFlusher } from "./start-over.js";
import { supervise } from "./supervisor.js";
import { usage } from "./usage.js";

/**
 * Ends with the process, with an ExitStatus.
 * @param unprotected why not all threads of the process are I/O flushers, where that is known
 */
export async function run(args: string[], unprotected?: string): Promise<void> {
  let values: Values;
  let logger: Logger;
  let options: DriverOptions;
  let standbys: number;
  try {
    values = parseOptions(args);
    logger = makeLogger(values);
    options = driverOptions(values, logger);
    socketPathOf(values);
    metricsSocketPathOf(values);
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
  const problem = unprotected ?? startOverAsIoFlusher();
  if (problem !== undefined) logger.warn({ problem }, "not all threads are protected");
  prepareProcess(logger);
  // A supervisor, which lives beside two daemons, loads nothing of the driver.
  const { serve } = await import("./serve.js");
  await serve(values, options, logger);
}
