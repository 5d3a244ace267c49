/** Default path of the daemon's socket. */

import { existsSync } from "node:fs";
import { join } from "node:path";

export const DEFAULT_SOCKET_PATH = "/run/blksnap/blksnapd.sock";
/** Environment variable that names another socket, for the daemon and its clients. */
export const SOCKET_ENVIRONMENT_VARIABLE = "BLKSNAP_SOCKET";

type Environment = Readonly<Record<string, string | undefined>>;

function given(environment: Environment, name: string): string | undefined {
  const value = environment[name];
  return value === "" ? undefined : value;
}

/** Socket of a daemon that a non-root user has started; undefined if users have no such folder. */
export function userSocketPath(environment: Environment = process.env): string | undefined {
  const runtime = given(environment, "XDG_RUNTIME_DIR");
  return runtime === undefined ? undefined : join(runtime, "blksnap", "blksnapd.sock");
}

/**
 * The socket that the environment names, else that of the user's own daemon if there is one, else the default.
 */
export function socketPath(
  environment: Environment = process.env,
  isRoot: boolean = process.geteuid?.() === 0,
): string {
  const named = given(environment, SOCKET_ENVIRONMENT_VARIABLE);
  if (named !== undefined) return named;
  const own = isRoot ? undefined : userSocketPath(environment);
  return own !== undefined && existsSync(own) ? own : DEFAULT_SOCKET_PATH;
}
