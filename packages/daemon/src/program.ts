/** Selects what blksnapd does: daemon, supervisor, doctor, or a report of its settings. */

import type { DriverOptions } from "@blksnap/driver";
import { DAEMON_VERSION } from "@blksnap/driver/version";
import { becomeIoFlusher } from "@blksnap/uring";
import type { Logger } from "pino";
import { isError, problemText } from "./config/config-problem.js";
import { type InForce, settingsInForce, withEarlierConfig } from "./config/in-force.js";
import { ServedFile } from "./config/served.js";
import { ExitStatus } from "./exit-status.js";
import { complain } from "./log.js";
import {
  driverOptions,
  hooksOf,
  makeLogger,
  metricsSocketPathOf,
  nbdListenerOf,
  parseOptions,
  socketPathOf,
  standbysOf,
  type Values,
} from "./options.js";
import { prepareProcess } from "./process-setup.js";
import { ServiceManager } from "./service-manager.js";
import { startOver } from "./start-over.js";
import { supervise } from "./supervisor.js";
import type { ToSupervisor } from "./supervisor-link.js";
import { usage } from "./usage.js";
import { withUserPaths } from "./user-paths.js";

/** The validated command line and configuration. */
interface Start {
  readonly inForce: InForce;
  readonly logger: Logger;
  readonly options: DriverOptions;
  readonly standbys: number;
}

/**
 * Resolves at the end of the process, with an ExitStatus.
 * @param unprotected why some threads of the process are no I/O flushers, if known
 */
export async function run(args: string[], unprotected?: string): Promise<void> {
  let given: Values;
  let start: Start | undefined;
  try {
    given = withUserPaths(parseOptions(args));
    if (await ranWithoutSettings(given)) return;
    start = startOf(given);
  } catch (error) {
    const [why = ""] = (error as Error).message.split("\n");
    complain(`${why.replace(/\.$/, "")}. See blksnapd --help`);
    process.exitCode = ExitStatus.USAGE;
    return;
  }
  if (start === undefined) process.exitCode = ExitStatus.USAGE;
  else if (given["print-config"] === true) await printConfig(given, start.inForce);
  else await act(start, args, unprotected);
}

/** Modes that need no settings. */
async function ranWithoutSettings(given: Values): Promise<boolean> {
  if (given.help === true) process.stdout.write(usage());
  else if (given.version === true) console.log(DAEMON_VERSION);
  else if (given["install-units"] === true || given["uninstall-units"] === true) {
    const { changeUnits } = await import("./install-units.js");
    process.exitCode = changeUnits(given["install-units"] === true);
  } else if (given["check-config"] === true) {
    const { checkStatus, configReport } = await import("./config/check-report.js");
    const report = await configReport(given);
    console.log(JSON.stringify(report));
    process.exitCode = checkStatus(report);
  } else return false;
  return true;
}

/**
 * Undefined if the configuration is invalid, which it prints.
 * @throws Error that says what is wrong about the command line
 */
function startOf(given: Values): Start | undefined {
  const inForce = inForceOf(given);
  if (inForce === undefined) return undefined;
  const { values, problems, isEarlier } = inForce;
  const logger = makeLogger(values);
  const options = driverOptions(values, logger);
  socketPathOf(values);
  metricsSocketPathOf(values);
  hooksOf(values);
  nbdListenerOf(values);
  const standbys = standbysOf(values);
  for (const problem of problems) logger.warn(problemText(problem));
  if (isEarlier) logger.warn(EARLIER_TEXT);
  return { inForce, logger, options, standbys };
}

const EARLIER_TEXT =
  "the configuration has mistakes: that of the last daemon stays in force, because devices " +
  "may be waiting. Correct the files, then: blksnapctl daemon upgrade";

function inForceOf(given: Values): InForce | undefined {
  const now = settingsInForce(given, process.env);
  const errors = now.problems.filter(isError);
  if (errors.length === 0) return now;
  const earlier = withEarlierConfig(now, given, process.env, ServedFile.of(given).read());
  if (earlier !== undefined) return earlier;
  refuse(given, errors.map(problemText));
  return undefined;
}

/** A standby leaves the report to its supervisor, which starts one again and again. */
function refuse({ standby }: Values, mistakes: readonly string[]): void {
  if (standby === true && process.send !== undefined) {
    const message: ToSupervisor = { type: "refused", why: mistakes.join(" ") };
    process.send(message);
    return;
  }
  for (const mistake of mistakes) complain(mistake);
}

async function printConfig(given: Values, inForce: InForce): Promise<void> {
  const { configDocument, configText } = await import("./config/print-config.js");
  if (given.json === true) console.log(JSON.stringify(configDocument(given, inForce)));
  else process.stdout.write(configText(given, inForce));
}

async function act(start: Start, args: string[], unprotected: string | undefined): Promise<void> {
  const { inForce, logger, options, standbys } = start;
  const { values } = inForce;
  if (values.doctor === true) {
    const { examineFor } = await import("./doctor/doctor.js");
    const given = { socketPath: socketPathOf(values), fix: values.fix === true };
    console.log(JSON.stringify(await examineFor(options, given)));
    return;
  }
  if (values.supervise === true) {
    // Daemons inherit the mark, so that none executes itself again for it: after a crash users wait for a start. Nor
    // may the process that starts them wait for their devices.
    becomeIoFlusher();
    const manager = new ServiceManager({ environment: process.env, pid: process.pid, logger });
    const daemonArgs = args.filter((arg) => arg !== "--supervise");
    process.exit(await supervise(daemonArgs, standbys, logger, manager));
  }
  const problem = unprotected ?? startOver(true);
  if (problem !== undefined) logger.warn({ problem }, "not all threads are protected");
  prepareProcess(logger, options.frontend === "nbd");
  // A supervisor loads nothing of the driver, because it lives beside two daemons.
  const { serve } = await import("./serve.js");
  await serve(values, options, logger, inForce);
}
