/**
 * The sockets that a service manager has made (sd_listen_fds(3)), as blksnapd.socket and blksnapd-nbd.socket say. They
 * outlive daemons: clients that come while none serves wait for the next one, which the first of them has started.
 *
 * ```
 *   systemd ── fds 3… ──▶ supervisor ── fds 3… ──▶ daemons    LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID; BLKSNAP_LISTEN_FD…
 * ```
 */
import { fstatSync } from "node:fs";
import { listeningSocket } from "@blksnap/uring";
import type { Logger } from "pino";

/** Where passed descriptors begin: SD_LISTEN_FDS_START. */
const PASSED_FD = 3;
/** More than any unit of ours has; each costs a duplicate in each daemon. */
const PASSED_MAX = 16;
/** Processes that a supervisor starts have other ids than LISTEN_PID names. */
const FROM_SUPERVISOR = { count: "BLKSNAP_LISTEN_FDS", names: "BLKSNAP_LISTEN_FDNAMES" };
const FROM_MANAGER = { count: "LISTEN_FDS", names: "LISTEN_FDNAMES" };
/** The control socket has the name of its unit, or whatever an administrator's own unit gives it. */
const NBD_NAME = "nbd";

type Environment = Record<string, string | undefined>;

export interface PassedSocket {
  readonly fd: number;
  /** FileDescriptorName= of its unit; empty without one. */
  readonly name: string;
}

/** What a passed socket is for. */
export type SocketUse = "control" | "nbd";

function useOf({ name }: PassedSocket): SocketUse {
  return name === NBD_NAME ? "nbd" : "control";
}

/** The descriptors from PASSED_FD on that are meant for this process. */
export function passedSockets(environment: Readonly<Environment>, pid: number): PassedSocket[] {
  const isOurs = environment["LISTEN_PID"] === String(pid);
  const from = isOurs ? FROM_MANAGER : FROM_SUPERVISOR;
  const count = Number(environment[from.count] ?? 0);
  if (!Number.isInteger(count) || count <= 0) return [];
  const names = (environment[from.names] ?? "").split(":");
  return Array.from({ length: Math.min(count, PASSED_MAX) }, (_, index) => ({
    fd: PASSED_FD + index,
    name: names[index] ?? "",
  }));
}

/** Takes the variables out of the environment: they are not meant for processes that this one starts. */
export function takePassedSockets(environment: Environment, pid: number): PassedSocket[] {
  const passed = passedSockets(environment, pid);
  for (const { count, names } of [FROM_MANAGER, FROM_SUPERVISOR]) {
    delete environment[count];
    delete environment[names];
  }
  delete environment["LISTEN_PID"];
  return passed;
}

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

/**
 * Those that a supervisor can pass on. The control socket comes first: where a daemon of an earlier version looks for
 * it.
 */
export function passableSockets(passed: readonly PassedSocket[]): PassedSocket[] {
  const open = passed.filter(({ fd }) => isOpen(fd));
  return open.sort((one, other) => useOf(one).localeCompare(useOf(other)));
}

/** For a process that gets the descriptors, in their order, as its own from PASSED_FD on. */
export function withPassedSockets(
  environment: Readonly<Environment>,
  passed: readonly PassedSocket[],
): Environment {
  return {
    ...environment,
    [FROM_SUPERVISOR.count]: String(passed.length),
    [FROM_SUPERVISOR.names]: passed.map(({ name }) => name).join(":"),
  };
}

/** Why it cannot be used there; undefined if it can. */
function problemOf(fd: number, path: string): string | undefined {
  try {
    const found = listeningSocket(fd);
    if (found.family === "tcp") return `it listens at TCP ${found.address}, port ${found.port}`;
    return found.path === path ? undefined : `it listens at ${found.path}`;
  } catch (error) {
    return (error as Error).message;
  }
}

const WANTED: Readonly<Record<SocketUse, string>> = {
  control: "it is not the control socket, and its FileDescriptorName is not nbd",
  nbd: "it is not the NBD socket",
};

/**
 * The descriptors to be served on; none for a socket that the daemon makes itself. What cannot be used is told: nothing
 * would be gained by ending, because devices need the daemon.
 * @param paths where each has to listen
 */
export function usableSockets(
  passed: readonly PassedSocket[],
  paths: Readonly<Record<SocketUse, string>>,
  logger: Logger,
): Partial<Record<SocketUse, number>> {
  const used: Partial<Record<SocketUse, number>> = {};
  for (const socket of passed) {
    const { fd, name } = socket;
    const use = useOf(socket);
    const why = problemOf(fd, paths[use]);
    if (why === undefined && used[use] === undefined) {
      used[use] = fd;
      continue;
    }
    const problem = why === undefined ? "there is another one for it" : `${WANTED[use]}: ${why}`;
    const text = "a socket of the service manager is not used";
    logger.warn({ name, fd, wanted: paths[use], problem }, text);
  }
  return used;
}
