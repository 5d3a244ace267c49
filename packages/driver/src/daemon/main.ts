/** blksnapd: the driver behind its control API, until it is told to end. */
import { parseArgs } from "node:util";
import { DEFAULT_SOCKET_PATH, ERRORS } from "@blksnap/api";
import { destination, type Logger, pino } from "pino";
import { ControlError } from "../control/control-error.js";
import type { ControlServer } from "../control/server.js";
import type { Driver, DriverOptions } from "../driver.js";
import type { TrackingParameters } from "../parameters.js";
import { prepareProcess } from "../system/process-setup.js";
import { DAEMON_VERSION } from "../version.js";
import { supervise, untilTurn } from "./supervisor.js";

const USAGE = `Usage: blksnapd [OPTION]...

Serves the control API of blksnap on a Unix socket, until SIGTERM or SIGINT. As long as a front is
mounted it refuses to end, and says which.

  --socket PATH          control socket (default: $BLKSNAP_SOCKET or ${DEFAULT_SOCKET_PATH})
  --state-dir PATH       where maps are kept, on tmpfs (default: /run/blksnap)
  --persistent-dir PATH  where persistent trackers and snapshots are kept, on a disk that is not
                         tracked (default: /var/lib/blksnap)
  --reactors N           threads that serve devices, 1 to 16 (default: one per CPU, at most 4)
  --front-depth N        requests in flight per tracked device (default: 64)
  --image-depth N        requests in flight per image (default: 32)
  --max-io BYTES         largest read or write (default: 524288)
  --diff-storage-minimum BYTES
                         portion by which diff storages grow (default: 1073741824)
  --tracking-block-minimum-shift N, --tracking-block-maximum-shift N
                         log2 of the smallest and largest CBT block, 9 to 31 (default: 16, 26)
  --tracking-block-maximum-count N
                         blocks wanted at most in a CBT map (default: 2097152)
  --chunk-minimum-shift N, --chunk-maximum-shift N
                         log2 of the smallest and largest chunk, 9 to 26 (default: 18, 26)
  --chunk-maximum-count-shift N
                         log2 of the chunks wanted at most per device (default: 40)
  --freeze-timeout MS    bound of freezing file systems at take (default: 10000)
  --log-level LEVEL      trace, debug, info, warn, error (default: info)
  --supervise            keep a daemon running, and others ready to go on after a crash
  --standbys N           with --supervise: daemons kept ready, 0 to 8 (default: 1)
  --version, --help

Example: blksnapd --reactors 2 &
         blksnapctl attach --device /dev/sdb1
`;

const OPTIONS = {
  socket: { type: "string" },
  "state-dir": { type: "string" },
  "persistent-dir": { type: "string" },
  reactors: { type: "string" },
  "front-depth": { type: "string" },
  "image-depth": { type: "string" },
  "max-io": { type: "string" },
  "diff-storage-minimum": { type: "string" },
  "tracking-block-minimum-shift": { type: "string" },
  "tracking-block-maximum-shift": { type: "string" },
  "tracking-block-maximum-count": { type: "string" },
  "chunk-minimum-shift": { type: "string" },
  "chunk-maximum-shift": { type: "string" },
  "chunk-maximum-count-shift": { type: "string" },
  "freeze-timeout": { type: "string" },
  "log-level": { type: "string" },
  supervise: { type: "boolean" },
  standbys: { type: "string" },
  standby: { type: "boolean" },
  version: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

type Values = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>["values"];

/** Exit status when a reactor has ended by itself: start the daemon again and it goes on. */
const REACTOR_LOST_STATUS = 70;

const END_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** As much of a mistyped value as an error message repeats. */
const QUOTED_MAX = 64;

class UsageError extends Error {}

function numberOption(values: Values, name: keyof Values, least: number, most: number) {
  const text = values[name];
  if (text === undefined) return undefined;
  const value = typeof text === "string" && /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= least && value <= most)) {
    const typed = String(text).slice(0, QUOTED_MAX);
    throw new UsageError(`--${name}: '${typed}' is no whole number from ${least} to ${most}`);
  }
  return value;
}

function pathOption(values: Values, name: "socket" | "state-dir" | "persistent-dir") {
  if (values[name] === "") throw new UsageError(`--${name} is empty`);
  return values[name];
}

function parameters(values: Values): Partial<TrackingParameters> {
  return given({
    trackingBlockMinimumShift: numberOption(values, "tracking-block-minimum-shift", 9, 31),
    trackingBlockMaximumShift: numberOption(values, "tracking-block-maximum-shift", 9, 31),
    trackingBlockMaximumCount: numberOption(values, "tracking-block-maximum-count", 1, 2 ** 30),
    chunkMinimumShift: numberOption(values, "chunk-minimum-shift", 9, 26),
    chunkMaximumShift: numberOption(values, "chunk-maximum-shift", 9, 26),
    chunkMaximumCountShift: numberOption(values, "chunk-maximum-count-shift", 0, 64),
  });
}

type Given<Options> = { [Name in keyof Options]?: Exclude<Options[Name], undefined> };

/** Without the options that were not given. */
function given<Options extends object>(options: Options): Given<Options> {
  const entries = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Given<Options>;
}

function driverOptions(values: Values, logger: Logger): DriverOptions {
  const maxIoBytes = numberOption(values, "max-io", 4096, 32 * 2 ** 20);
  if (maxIoBytes !== undefined && maxIoBytes % 4096 !== 0) {
    throw new UsageError(`--max-io: ${maxIoBytes} is no multiple of 4096`);
  }
  const optional = {
    stateDirectory: pathOption(values, "state-dir"),
    persistentDirectory: pathOption(values, "persistent-dir"),
    reactors: numberOption(values, "reactors", 1, 16),
    frontDepth: numberOption(values, "front-depth", 1, 4096),
    imageDepth: numberOption(values, "image-depth", 1, 4096),
    maxIoBytes,
    portionBytes: numberOption(values, "diff-storage-minimum", 2 ** 19, 2 ** 46),
    freezeTimeoutMs: numberOption(values, "freeze-timeout", 1, 3_600_000),
  };
  return {
    logger,
    // Its devices wait for a server; only a new process can be one.
    onReactorLost: () => process.exit(REACTOR_LOST_STATUS),
    ...given(optional),
    parameters: parameters(values),
  };
}

function makeLogger(values: Values): Logger {
  const level = values["log-level"] ?? "info";
  if (!Object.hasOwn(pino.levels.values, level)) {
    throw new UsageError(`--log-level: '${level.slice(0, QUOTED_MAX)}' is no level`);
  }
  return pino({ level, base: null }, destination({ dest: 2, sync: true }));
}

/** Ends with the process: 0 after a clean end, 1 when it could not start, 2 for a usage error. */
export async function main(args: string[]): Promise<void> {
  let values: Values;
  let logger: Logger;
  let options: DriverOptions;
  let standbys: number;
  try {
    ({ values } = parseArgs({ args, options: OPTIONS, strict: true }));
    logger = makeLogger(values);
    options = driverOptions(values, logger);
    pathOption(values, "socket");
    standbys = numberOption(values, "standbys", 0, 8) ?? 1;
  } catch (error) {
    const [why = ""] = (error as Error).message.split("\n");
    console.error(`blksnapd: ${why.replace(/\.$/, "")}. See blksnapd --help`);
    process.exitCode = 2;
    return;
  }
  if (values.help === true) {
    process.stdout.write(USAGE);
    return;
  }
  if (values.version === true) {
    console.log(DAEMON_VERSION);
    return;
  }
  if (values.supervise === true) {
    process.exit(
      await supervise(
        args.filter((arg) => arg !== "--supervise"),
        standbys,
        logger,
      ),
    );
  }
  prepareProcess(logger);
  await serve(values, options, logger);
}

async function serve(values: Values, options: DriverOptions, logger: Logger): Promise<void> {
  const socketPath = values.socket ?? process.env["BLKSNAP_SOCKET"] ?? DEFAULT_SOCKET_PATH;
  try {
    // A supervisor, which lives beside two daemons, needs nothing of the driver.
    const { Driver } = await import("../driver.js");
    // Devices first: after a crash their users wait. Only then what the control API needs is
    // loaded; a standby has loaded it already.
    if (values.standby === true) await import("../control/server.js");
    const turn = values.standby === true ? untilTurn() : Promise.resolve();
    const signals = new EndSignals();
    void turn.then(() => signals.listen());
    const driver = await Driver.start(options, values.standby === true ? turn : undefined);
    let server: ControlServer;
    try {
      const { startControlServer } = await import("../control/server.js");
      const version = DAEMON_VERSION;
      server = await startControlServer({ socketPath, logger, version, control: driver });
    } catch (error) {
      if (driver.frontsInUse().length === 0) await driver.stop();
      throw error;
    }
    logger.info({ socketPath }, "serving");
    await signals.until((signal) => mayEnd(driver, logger, signal));
    await server.close();
    await driver.stop();
    logger.info("ended");
  } catch (error) {
    const hint = error instanceof ControlError ? `. ${error.hint ?? ERRORS[error.code].hint}` : "";
    console.error(`blksnapd: ${(error as Error).message}${hint}`);
    // Fronts that are in use wait for the next daemon; this one cannot be reached.
    process.exit(1);
  }
}

/**
 * Signals that tell the daemon to end. One that comes while devices are being started is kept until
 * the daemon can judge it: dying in the middle would leave their users waiting.
 */
class EndSignals {
  #kept: NodeJS.Signals | undefined;
  #onSignal = (signal: NodeJS.Signals): void => {
    this.#kept = signal;
  };
  readonly #listener = (signal: NodeJS.Signals): void => this.#onSignal(signal);

  listen(): void {
    for (const name of END_SIGNALS) process.on(name, this.#listener);
  }

  /** Resolves on the first signal that is accepted; the next one ends the process at once. */
  until(accepts: (signal: NodeJS.Signals) => boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#onSignal = (signal) => {
        if (!accepts(signal)) return;
        for (const name of END_SIGNALS) process.off(name, this.#listener);
        resolve();
      };
      if (this.#kept !== undefined) this.#onSignal(this.#kept);
    });
  }
}

/** Never while a front is in use: its file system would lose its disk. */
function mayEnd(driver: Driver, logger: Logger, signal: NodeJS.Signals): boolean {
  const inUse = driver.frontsInUse();
  if (inUse.length === 0) return true;
  const names = inUse.map(({ front, device }) => `${front} (${device})`).join(", ");
  logger.error({ inUse }, `${signal} refused: in use: ${names}. Unmount first`);
  return false;
}
