/** What a daemon works with: command line before environment before files before defaults. */
import { DAEMON_SETTINGS, SOCKET_ENVIRONMENT_VARIABLE } from "@blksnap/api";
import { configPathOf, type Values } from "../options.js";
import { type Config, type ConfiguredDevice, readConfig } from "./config.js";
import type { ConfigProblem } from "./config-problem.js";
import { readConfigTexts } from "./config-texts.js";

/**
 * What the files said when the supervisor was started, in JSON: a daemon that resumes devices takes it where
 * the files have become wrong meanwhile. Users of fronts wait for no corrected file.
 */
export const EARLIER_CONFIG_VARIABLE = "BLKSNAPD_EARLIER_CONFIG";

export interface InForce {
  readonly config: Config;
  /** Those that were read. */
  readonly files: readonly string[];
  /** The command line, and beneath it the files. */
  readonly values: Values;
  /** By option, where it is not the default that counts. */
  readonly origins: ReadonlyMap<string, string>;
  readonly problems: readonly ConfigProblem[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * @param given the command line
 * @throws Error with what is wrong about it
 */
export function settingsInForce(given: Values, environment: Environment): InForce {
  const { texts, problems } = readConfigTexts(configPathOf(given));
  const read = readConfig(texts);
  const files = texts.map(({ path }) => path);
  return {
    ...mergedWith(read.config, given, environment),
    files,
    problems: [...problems, ...read.problems],
  };
}

function mergedWith(
  config: Config,
  given: Values,
  environment: Environment,
): Pick<InForce, "config" | "values" | "origins"> {
  const values: Record<string, string | boolean> = {};
  const origins = new Map<string, string>();
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

/** For the daemons that this process starts. */
export function earlierConfigText({ config }: InForce): string {
  return JSON.stringify({ values: [...config.values], devices: config.devices });
}

/** The same with what the files said before, where the supervisor has told that. */
export function withEarlierConfig(
  now: InForce,
  given: Values,
  environment: Environment,
): InForce | undefined {
  const text = environment[EARLIER_CONFIG_VARIABLE];
  if (text === undefined) return undefined;
  const { values, devices } = JSON.parse(text) as {
    values: [string, { value: string; from: string }][];
    devices: ConfiguredDevice[];
  };
  return { ...now, ...mergedWith({ values: new Map(values), devices }, given, environment) };
}
