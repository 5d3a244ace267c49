/** Where the daemon listens unless told otherwise. */
export const DEFAULT_SOCKET_PATH = "/run/blksnap/blksnapd.sock";
/** Names another socket, for the daemon as for its clients. */
export const SOCKET_ENVIRONMENT_VARIABLE = "BLKSNAP_SOCKET";

/** The socket that the environment names, else the default one. */
export function socketPath(environment: Record<string, string | undefined> = process.env): string {
  const named = environment[SOCKET_ENVIRONMENT_VARIABLE];
  return named === undefined || named === "" ? DEFAULT_SOCKET_PATH : named;
}
