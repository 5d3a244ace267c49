/** A driver's start options; those that users may set are in SETTINGS of @blksnap/api. */
import {
  defaultsOf,
  SETTINGS,
  type SettingDefaults,
  type SettingValues,
  type StatusResponse,
} from "@blksnap/api";
import { MAX_IO_BYTES, ZERO_COPY_IO_BYTES } from "@blksnap/ublk";
import type { Logger } from "pino";
import { fixParameters, type TrackingParameters } from "./parameters.js";
import { readRecords } from "./records/state-directory.js";

/** The settings, and options that only a program can pass. */
export interface DriverOptions extends SettingValues<typeof SETTINGS> {
  readonly logger: Logger;
  /** Block and chunk sizes; defaults are the module's. */
  readonly parameters?: Partial<TrackingParameters>;
  /** Time limit of draining writes at take; default 10 s. */
  readonly holdTimeoutMs?: number;
  /** If given: awaited before the state directory is taken over, after everything that can be done earlier. */
  readonly untilTurn?: () => Promise<void>;
  /** How long to wait for another daemon to give the state directory up; default 0. */
  readonly takeOverTimeoutMs?: number;
  /**
   * The process exits with this status at once if a reactor ends by itself: its devices wait for a new process, and the
   * kernel releases the reactor's requests only when this one has ended. Without it, the devices of such a reactor are
   * released, and wait for the next driver.
   */
  readonly reactorLostStatus?: number;
  /** The status of the program's configuration. */
  readonly configuration?: () => StatusResponse["daemon"]["configuration"];
  /** Called when a reactor has ended by itself: its devices wait for a new process. */
  readonly onReactorLost?: (reactor: number) => void;
}

type ProgramDefaults = Required<Pick<DriverOptions, "holdTimeoutMs" | "takeOverTimeoutMs">>;
type Defaulted = SettingDefaults<typeof SETTINGS> & ProgramDefaults;

/** The directory of older daemons: if fronts of theirs are in use, they are resumed there. */
const STATE_DIRECTORY_BEFORE = "/run/blksnap";

const DEFAULTS: Defaulted = {
  ...defaultsOf(SETTINGS),
  holdTimeoutMs: 10_000,
  takeOverTimeoutMs: 0,
};

export interface DriverSettings
  extends Omit<DriverOptions, "parameters" | keyof Defaulted>,
    Defaulted {
  readonly parameters: TrackingParameters;
  readonly maxIoBytes: number;
  /** In place of maxIoBytes for fronts with zero copy. */
  readonly zeroCopyIoBytes: number;
}

/** The usual directory, unless the older one holds records. */
export function presentStateDirectory(
  usual: string = SETTINGS.stateDirectory.default,
  before: string = STATE_DIRECTORY_BEFORE,
): string {
  const hasRecords = (path: string) => readRecords(path, "").length > 0;
  return hasRecords(before) && !hasRecords(usual) ? before : usual;
}

/** The options with all defaults; adjustments are logged. */
export function settingsOf(options: DriverOptions): DriverSettings {
  const stateDirectory = options.stateDirectory ?? presentStateDirectory();
  const settings = { ...DEFAULTS, ...options, stateDirectory };
  const fixed = fixParameters(options.parameters ?? {}, settings.portionBytes);
  for (const note of fixed.notes) options.logger.warn(note);
  return {
    ...settings,
    parameters: fixed.parameters,
    portionBytes: fixed.portionBytes,
    maxIoBytes: options.maxIoBytes ?? MAX_IO_BYTES,
    zeroCopyIoBytes: options.maxIoBytes ?? ZERO_COPY_IO_BYTES,
  };
}
