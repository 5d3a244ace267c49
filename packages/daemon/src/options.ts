/** Parses the command line of blksnapd by the table of its options, and derives options of the driver. */
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import {
  type ChoiceSetting,
  DAEMON_SETTINGS,
  type NbdListenerOpenRequest,
  type NumberSetting,
  PARAMETERS,
  parseTcpAddress,
  SETTINGS,
  type SettingTable,
  type SettingValues,
  socketPath,
  type TcpAddress,
} from "@blksnap/api";
import type { DriverOptions } from "@blksnap/driver";
import type { Logger } from "pino";
import { stderrLog } from "./log.js";
import { OPTIONS } from "./option-table.js";
import { addressProblem, choiceProblem, levelProblem, numberProblem } from "./setting-values.js";

type OwnOption = (typeof DAEMON_SETTINGS)[keyof typeof DAEMON_SETTINGS];
type Given = Readonly<Record<string, string | boolean | undefined>>;

/** The given values by option; the daemon's own by name. */
export type Values = Given & {
  readonly [Own in OwnOption as Own["option"]]?: Own["type"] extends "flag" ? boolean : string;
};

class UsageError extends Error {}

/** @throws Error with what is wrong about them */
export function parseOptions(args: string[]): Values {
  const options = Object.fromEntries(
    OPTIONS.map(({ option, type }) => [
      option,
      {
        type: type === "flag" ? ("boolean" as const) : ("string" as const),
        ...(option === "help" && { short: "h" }),
      },
    ]),
  );
  const values = parseArgs({ args, options, strict: true }).values as Values;
  if (values.fix === true && values.doctor !== true) {
    throw new UsageError("--fix goes with --doctor");
  }
  if (values.json === true && values["print-config"] !== true) {
    throw new UsageError("--json goes with --print-config");
  }
  return values;
}

/** How many daemons a supervisor keeps ready. @throws Error that says what is wrong about it */
export function standbysOf(values: Values): number {
  return numberOf(values, DAEMON_SETTINGS.standbys) ?? DAEMON_SETTINGS.standbys.default;
}

/** @throws Error for an empty one */
export function socketPathOf(values: Values): string {
  return pathOf(values, DAEMON_SETTINGS.socket.option) ?? socketPath();
}

/** @throws Error for an empty one */
export function metricsSocketPathOf(values: Values): string | undefined {
  return pathOf(values, DAEMON_SETTINGS.metricsSocket.option);
}

/** @throws Error with what is wrong about it */
export function hooksOf(values: Values): { directory: string; timeoutMs: number } {
  const { hooksDirectory, hookTimeoutMs } = DAEMON_SETTINGS;
  return {
    directory: resolve(pathOf(values, hooksDirectory.option) ?? hooksDirectory.default),
    timeoutMs: numberOf(values, hookTimeoutMs) ?? hookTimeoutMs.default,
  };
}

/** @throws Error for an empty one */
export function configPathOf(values: Values): string {
  return pathOf(values, DAEMON_SETTINGS.config.option) ?? DAEMON_SETTINGS.config.default;
}

function numberOf(values: Values, setting: NumberSetting): number | undefined {
  const text = values[setting.option];
  if (text === undefined) return undefined;
  const value = typeof text === "string" && /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  const problem = numberProblem(setting, value, text);
  if (problem !== undefined) throw new UsageError(`--${setting.option}: ${problem}`);
  return value;
}

function choiceOf(values: Values, setting: ChoiceSetting): string | undefined {
  const value = values[setting.option];
  const problem = value === undefined ? undefined : choiceProblem(setting, value);
  if (problem !== undefined) throw new UsageError(`--${setting.option}: ${problem}`);
  return value as string | undefined;
}

/** The TCP address for NBD clients besides nbd.sock. @throws Error that says what is wrong about it */
export function nbdListenerOf(values: Values): NbdListenerOpenRequest | undefined {
  const { nbdListen, nbdCertificates, nbdAnyClient, nbdWritable, nbdInsecure } = DAEMON_SETTINGS;
  const text = values[nbdListen.option];
  const certificates = pathOf(values, nbdCertificates.option);
  if (text === undefined) return undefined;
  const problem = addressProblem(text);
  if (problem !== undefined) throw new UsageError(`--${nbdListen.option}: ${problem}`);
  return {
    ...(parseTcpAddress(text) as TcpAddress),
    ...(certificates === undefined ? {} : { certificates: resolve(certificates) }),
    any_client: values[nbdAnyClient.option] === true,
    writable: values[nbdWritable.option] === true,
    insecure: values[nbdInsecure.option] === true,
  };
}

function pathOf(values: Values, option: string): string | undefined {
  const path = values[option];
  if (path === "") throw new UsageError(`--${option} is empty`);
  return typeof path === "string" ? path : undefined;
}

/** @throws Error with what is wrong about it */
function givenValue(setting: SettingTable[string], values: Values) {
  switch (setting.type) {
    case "path":
    case "level":
    case "address":
      return pathOf(values, setting.option);
    case "flag":
      return values[setting.option];
    case "choice":
      return choiceOf(values, setting);
    default:
      return numberOf(values, setting);
  }
}

/** The given settings of a table. @throws Error that says what is wrong about them */
function settingsIn<Table extends SettingTable>(table: Table, values: Values) {
  const given: Record<string, string | number | boolean> = {};
  for (const [name, setting] of Object.entries(table)) {
    const value = givenValue(setting, values);
    if (value !== undefined) given[name] = value;
  }
  return given as SettingValues<Table>;
}

/** @throws Error with what is wrong about them */
export function driverOptions(values: Values, logger: Logger): DriverOptions {
  return {
    logger,
    ...settingsIn(SETTINGS, values),
    parameters: settingsIn(PARAMETERS, values),
  };
}

/** @throws Error for an unknown level */
export function makeLogger(values: Values): Logger {
  const { option, default: usual } = DAEMON_SETTINGS.logLevel;
  const level = values[option] ?? usual;
  const problem = levelProblem(level);
  if (problem !== undefined) throw new UsageError(`--${option}: ${problem}`);
  return stderrLog(level as string);
}
