/** The settings in force: command line before environment before files before defaults. */
import { DAEMON_SETTINGS, SOCKET_ENVIRONMENT_VARIABLE } from "@blksnap/api";
import { configPathOf, type Values } from "../options.js";
import { userDefaults } from "../user-paths.js";
import { type Config, readConfig } from "./config.js";
import { type ConfigProblem, isError } from "./config-problem.js";
import { readConfigTexts } from "./config-texts.js";
import type { Served } from "./served.js";

export interface InForce {
  readonly config: Config;
  /** The files that were read. */
  readonly files: readonly string[];
  /** The command line, and below it the files. */
  readonly values: Values;
  /** By option, for values that are not defaults. */
  readonly origins: ReadonlyMap<string, string>;
  readonly problems: readonly ConfigProblem[];
  /** The files are invalid: the settings of the last daemon that served replace them. */
  readonly isEarlier: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * @param given the command line
 * @throws Error that says what is wrong about it
 */
export function settingsInForce(given: Values, environment: Environment): InForce {
  const { texts, problems } = readConfigTexts(configPathOf(given));
  const read = readConfig(texts);
  const files = texts.map(({ path }) => path);
  return {
    ...mergedWith(read.config, given, environment),
    files,
    problems: [...problems, ...read.problems],
    isEarlier: false,
  };
}

function mergedWith(
  config: Config,
  given: Values,
  environment: Environment,
): Pick<InForce, "config" | "values" | "origins"> {
  const values: Record<string, string | boolean> = {};
  const origins = new Map<string, string>();
  for (const [option, path] of Object.entries(userDefaults(given, environment))) {
    values[option] = path;
    origins.set(option, "folders of the user");
  }
  for (const [option, { value, from }] of config.values) {
    values[option] = typeof value === "boolean" ? value : String(value);
    origins.set(option, from);
  }
  if (environment[SOCKET_ENVIRONMENT_VARIABLE]) {
    delete values[DAEMON_SETTINGS.socket.option];
    origins.set(DAEMON_SETTINGS.socket.option, `$${SOCKET_ENVIRONMENT_VARIABLE}`);
  }
  for (const [option, value] of Object.entries(given)) {
    if (value === undefined) continue;
    values[option] = value;
    origins.set(option, "command line");
  }
  return { config, values: values as Values, origins };
}

/**
 * The same with the configuration of the last daemon that served, if the files have become invalid since: devices may
 * wait. Undefined if there is none, or no process waits for this one: a check of the settings shows the mistakes, and
 * a standby of a daemon that serves refuses to get ready.
 */
export function withEarlierConfig(
  now: InForce,
  given: Values,
  environment: Environment,
  earlier: Served | undefined,
): InForce | undefined {
  if (earlier === undefined || !now.problems.some(isError)) return undefined;
  if (given.standby === true || given.doctor === true || given["print-config"] === true) {
    return undefined;
  }
  return { ...now, ...mergedWith(earlier.config, given, environment), isEarlier: true };
}
