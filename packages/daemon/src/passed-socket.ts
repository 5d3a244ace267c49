/**
 * The control socket where a service manager has made it (sd_listen_fds(3)), as blksnapd.socket says. It outlives daemons:
 * clients that come while none serves wait for the next one, which the first of them has started.
 *
 * ```
 *   systemd ── fd 3 ──▶ supervisor ── fd 3 ──▶ daemons       LISTEN_FDS and LISTEN_PID; BLKSNAP_LISTEN_FDS
 * ```
 */
import { fstatSync, readFileSync } from "node:fs";
import type { Logger } from "pino";

/** Where passed descriptors begin: SD_LISTEN_FDS_START. */
const PASSED_FD = 3;
/** Processes that a supervisor starts have other ids than LISTEN_PID names. */
const FROM_SUPERVISOR = "BLKSNAP_LISTEN_FDS";
const NAMES = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", FROM_SUPERVISOR];
/** __SO_ACCEPTCON of the kernel: it listens. */
const LISTENS = 0x10000;

type Environment = Record<string, string | undefined>;

/** How many descriptors from PASSED_FD on are meant for this process. */
export function passedSockets(environment: Readonly<Environment>, pid: number): number {
  const isOurs = environment["LISTEN_PID"] === String(pid);
  const text = isOurs ? environment["LISTEN_FDS"] : environment[FROM_SUPERVISOR];
  const count = Number(text ?? 0);
  return Number.isInteger(count) && count > 0 ? count : 0;
}

/** Takes the variables out of the environment: they are not meant for processes that this one starts. */
export function takePassedSocket(environment: Environment, pid: number): number | undefined {
  const count = passedSockets(environment, pid);
  for (const name of NAMES) delete environment[name];
  return count > 0 ? PASSED_FD : undefined;
}

/** For a process that gets the descriptor as its own PASSED_FD. */
export function withPassedSocket(environment: Readonly<Environment>): Environment {
  return { ...environment, [FROM_SUPERVISOR]: "1" };
}

/** The path at which a descriptor listens, as /proc/net/unix names it; undefined where it does not. */
function listensAt(fd: number): string | undefined {
  const { ino } = fstatSync(fd, { bigint: true });
  for (const line of readFileSync("/proc/net/unix", "utf8").split("\n")) {
    const [, flags, inode, path] =
      /^\S+ \S+ \S+ ([0-9A-F]+) \S+ \S+ +(\d+)(?: (.*))?$/.exec(line) ?? [];
    if (inode === String(ino)) return Number.parseInt(flags ?? "", 16) & LISTENS ? path : undefined;
  }
  return undefined;
}

/**
 * What the control API is served on; nothing where the daemon makes the socket itself.
 * @param path that of the control socket
 */
export function usablePassedSocket(
  fd: number | undefined,
  path: string,
  logger: Logger,
): { listenFd?: number } {
  if (fd === undefined) return {};
  let at: string | undefined;
  try {
    at = listensAt(fd);
    if (at === path) return { listenFd: fd };
  } catch (error) {
    logger.debug({ err: error }, "the socket of the service manager cannot be looked at");
  }
  // Nothing would be gained by ending: devices need the daemon.
  const text = "the socket of the service manager is not used: it is not the control socket";
  logger.warn({ socketPath: path, passed: at ?? null }, text);
  return {};
}
