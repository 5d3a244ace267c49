/** The options of blksnapd. */
import { parseArgs } from "node:util";
import { DEFAULT_SOCKET_PATH, socketPath } from "@blksnap/api";
import type { DriverOptions, TrackingParameters } from "@blksnap/driver";
import { destination, type Logger, pino } from "pino";

export const USAGE: string = `Usage: blksnapd [OPTION]...

Serves the control API of blksnap on a Unix socket, until SIGTERM or SIGINT. As long as a front or an
image is in use it refuses to end, and says which and by whom. SIGHUP is ignored.

  --socket PATH          control socket (default: $BLKSNAP_SOCKET or ${DEFAULT_SOCKET_PATH})
  --state-dir PATH       where maps are kept, on tmpfs (default: /run/blksnap/state)
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
  --trust-reboots        go on with persistent trackers over reboots and power cuts also where nothing
                         proves that nobody wrote meanwhile. Only for machines on which no rescue
                         disk, no other machine and no boot without blksnapd writes to the devices
  --stops-last           said by a service that is stopped after all that could write to the devices:
                         a stop while systemd takes the system down is the end of all writes
  --io-timeout MS        in what time a store, or the disk of --persistent-dir, has to answer before
                         writers go on without it, 100 to 3600000 (default: 10000)
  --log-level LEVEL      trace, debug, info, warn, error (default: info)
  --keep                 end at once on SIGTERM and leave fronts and images to the next daemon: who
                         uses them waits until it is started, and sees no error
  --doctor [--fix]       print what is wrong on this host as JSON and end; for people there is
                         blksnapctl doctor
  --supervise            keep a daemon running, and others ready to go on after a crash
  --standbys N           with --supervise: daemons kept ready, 0 to 8 (default: 1)
  --version, --help

Exit status: 0 ended as asked, 1 failed, 2 wrong usage, 70 a thread was lost, 75 left to a successor
(daemon upgrade). After 70 and 75 a daemon has to be started again.

Examples: blksnapd --supervise &
          blksnapctl attach --device /dev/sdb1
          blksnapctl daemon upgrade
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
  "io-timeout": { type: "string" },
  "log-level": { type: "string" },
  "trust-reboots": { type: "boolean" },
  "stops-last": { type: "boolean" },
  keep: { type: "boolean" },
  doctor: { type: "boolean" },
  fix: { type: "boolean" },
  supervise: { type: "boolean" },
  standbys: { type: "string" },
  // Said by the supervisor to the daemons that it starts.
  supervised: { type: "boolean" },
  standby: { type: "boolean" },
  version: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

/** What was given, by name. */
export type Values = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>["values"];

/** @throws Error with what is wrong about them */
export function parseOptions(args: string[]): Values {
  const { values } = parseArgs({ args, options: OPTIONS, strict: true });
  if (values.fix === true && values.doctor !== true) {
    throw new UsageError("--fix goes with --doctor");
  }
  return values;
}

/** How many daemons a supervisor keeps ready. @throws Error with what is wrong about it */
export function standbysOf(values: Values): number {
  return numberOption(values, "standbys", 0, 8) ?? 1;
}

/** @throws Error for an empty one */
export function socketPathOf(values: Values): string {
  return pathOption(values, "socket") ?? socketPath();
}

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

/** @throws Error with what is wrong about them */
export function driverOptions(values: Values, logger: Logger): DriverOptions {
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
    trustReboots: values["trust-reboots"],
    ioTimeoutMs: numberOption(values, "io-timeout", 100, 3_600_000),
  };
  return { logger, ...given(optional), parameters: parameters(values) };
}

/** @throws Error for a level that does not exist */
export function makeLogger(values: Values): Logger {
  const level = values["log-level"] ?? "info";
  if (!Object.hasOwn(pino.levels.values, level)) {
    throw new UsageError(`--log-level: '${level.slice(0, QUOTED_MAX)}' is no level`);
  }
  return pino({ level, base: null }, destination({ dest: 2, sync: true }));
}
