/**
 * Default paths of a daemon of a non-root user: in the user's own folders (XDG Base Directory Specification).
 */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import {
  DAEMON_SETTINGS,
  SETTINGS,
  SOCKET_ENVIRONMENT_VARIABLE,
  userSocketPath,
} from "@blksnap/api";
import type { Values } from "./options.js";

type Environment = Readonly<Record<string, string | undefined>>;

const STATE = SETTINGS.stateDirectory.option;
const PERSISTENT = SETTINGS.persistentDirectory.option;
const CONFIG = DAEMON_SETTINGS.config.option;
const SOCKET = DAEMON_SETTINGS.socket.option;

function isOfUser(given: Values, isRoot: boolean): boolean {
  return !isRoot && given[SETTINGS.frontend.option] === "nbd";
}

function home(environment: Environment, name: string, usual: string): string {
  const value = environment[name];
  return value === undefined || value === "" ? join(homedir(), usual) : value;
}

/** The default file of settings; it may be missing. */
export function userConfigPath(environment: Environment = process.env): string {
  return join(home(environment, "XDG_CONFIG_HOME", ".config"), "blksnap", "blksnap.toml");
}

/**
 * The command line with the paths that only it may set.
 * @throws Error if there is no folder for them
 */
export function withUserPaths(
  given: Values,
  environment: Environment = process.env,
  isRoot: boolean = process.geteuid?.() === 0,
): Values {
  if (!isOfUser(given, isRoot)) return given;
  const runtime = environment["XDG_RUNTIME_DIR"] ?? "";
  const hasSocket = Boolean(given[SOCKET] ?? environment[SOCKET_ENVIRONMENT_VARIABLE]);
  if (runtime === "" && !(given[STATE] !== undefined && hasSocket)) {
    throw new Error(`XDG_RUNTIME_DIR is not set: give --${STATE} and --${SOCKET}`);
  }
  return {
    [STATE]: join(runtime, "blksnap", "state"),
    [CONFIG]: userConfigPath(environment),
    ...given,
  };
}

/** The command line of a check, with the user's own file of settings if there is one. */
export function withUserConfig(
  given: Values,
  environment: Environment = process.env,
  isRoot: boolean = process.geteuid?.() === 0,
): Values {
  if (isRoot || given[CONFIG] !== undefined) return given;
  const path = userConfigPath(environment);
  return existsSync(path) ? { [CONFIG]: path, ...given } : given;
}

/** Defaults that a configuration file may replace, by option. */
export function userDefaults(
  given: Values,
  environment: Environment,
  isRoot: boolean = process.geteuid?.() === 0,
): Readonly<Record<string, string>> {
  if (!isOfUser(given, isRoot)) return {};
  const socket = userSocketPath(environment);
  return {
    [PERSISTENT]: join(home(environment, "XDG_STATE_HOME", ".local/state"), "blksnap"),
    ...(socket === undefined ? {} : { [SOCKET]: socket }),
  };
}
