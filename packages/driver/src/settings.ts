/** What a driver is started with. */
import type { Logger } from "pino";
import { fixParameters, type TrackingParameters } from "./parameters.js";
import { readRecords } from "./records/state-directory.js";

export interface DriverOptions {
  readonly logger: Logger;
  /** Directory on tmpfs for the maps and records; default /run/blksnap/state. */
  readonly stateDirectory?: string;
  /** Directory on a medium for persistent trackers and snapshots; default /var/lib/blksnap. */
  readonly persistentDirectory?: string;
  /** Reactor threads, 1 to 16; default one per CPU, at most 4. */
  readonly reactors?: number;
  /** Requests in flight per front, 1 to 4096; default 64. */
  readonly frontDepth?: number;
  /** Requests in flight per image, 1 to 4096; default 32. */
  readonly imageDepth?: number;
  /** Largest read or write of fronts and images, a multiple of 4096; default 512 KiB. */
  readonly maxIoBytes?: number;
  /** The diff storage grows by this; default 1 GiB (the module's diff_storage_minimum). */
  readonly portionBytes?: number;
  /** How finely devices are tracked; defaults are the module's. */
  readonly parameters?: Partial<TrackingParameters>;
  /** Bounds of a take: freezing file systems, and draining writes. Default 10 s each. */
  readonly freezeTimeoutMs?: number;
  readonly holdTimeoutMs?: number;
  /** In what time a store or the medium of a journal has to answer; default 10 s. */
  readonly ioTimeoutMs?: number;
  /** Where given, all that can be done before the state directory is taken over is done, then it is waited for. */
  readonly untilTurn?: () => Promise<void>;
  /** How long to wait for another daemon to give the state directory up; default 0. */
  readonly takeOverTimeoutMs?: number;
  /**
   * The process ends with this status at once when a reactor ends by itself, as its devices need: they
   * wait for a new process, and what the reactor had in hand is given back only when this one has ended.
   * Without it the devices of such a reactor are let go of, and wait for the next driver.
   */
  readonly reactorLostStatus?: number;
  /**
   * The operator guarantees that from one boot to the next nobody but this driver writes to devices of
   * persistent trackers; see JudgeOptions. Default false.
   */
  readonly trustReboots?: boolean;
  /** Called when a reactor has ended by itself: its devices wait for a new process. */
  readonly onReactorLost?: (reactor: number) => void;
}

type WithDefault =
  | "stateDirectory"
  | "persistentDirectory"
  | "frontDepth"
  | "imageDepth"
  | "maxIoBytes"
  | "portionBytes"
  | "freezeTimeoutMs"
  | "holdTimeoutMs"
  | "ioTimeoutMs"
  | "takeOverTimeoutMs"
  | "trustReboots";
type Defaulted = Required<Pick<DriverOptions, WithDefault>>;

/** Private, and apart from the socket, whose folder the group may enter. */
const STATE_DIRECTORY = "/run/blksnap/state";
/** Where daemons before this one kept it: fronts of theirs that are in use are gone on with there. */
const STATE_DIRECTORY_BEFORE = "/run/blksnap";

const DEFAULTS: Defaulted = {
  stateDirectory: STATE_DIRECTORY,
  persistentDirectory: "/var/lib/blksnap",
  frontDepth: 64,
  imageDepth: 32,
  maxIoBytes: 512 * 1024,
  portionBytes: 2 ** 30,
  freezeTimeoutMs: 10_000,
  holdTimeoutMs: 10_000,
  ioTimeoutMs: 10_000,
  takeOverTimeoutMs: 0,
  trustReboots: false,
};

export interface DriverSettings extends Omit<DriverOptions, "parameters" | WithDefault>, Defaulted {
  readonly parameters: TrackingParameters;
}

/** The usual directory, unless it is the one before that holds records. */
export function presentStateDirectory(
  usual: string = STATE_DIRECTORY,
  before: string = STATE_DIRECTORY_BEFORE,
): string {
  const hasRecords = (path: string) => readRecords(path, "").length > 0;
  return hasRecords(before) && !hasRecords(usual) ? before : usual;
}

/** The options with all defaults; what had to be changed in them is logged. */
export function settingsOf(options: DriverOptions): DriverSettings {
  const stateDirectory = options.stateDirectory ?? presentStateDirectory();
  const settings = { ...DEFAULTS, ...options, stateDirectory };
  const fixed = fixParameters(options.parameters ?? {}, settings.portionBytes);
  for (const note of fixed.notes) options.logger.warn(note);
  return { ...settings, parameters: fixed.parameters, portionBytes: fixed.portionBytes };
}
