/**
 * The sockets that a service manager has created (sd_listen_fds(3)), as in blksnapd.socket, blksnapd-nbd.socket and
 * blksnapd-nbd-tcp.socket.
 * They outlive daemons: the first client has a daemon started, and clients that connect while none serves wait for
 * the next one.
 *
 * ```
 *   systemd ── fds 3… ──▶ supervisor ── fds 3… ──▶ daemons    LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID; BLKSNAP_LISTEN_FD…
 * ```
 */
import { fstatSync } from "node:fs";
import { type TcpAddress, tcpAddressText } from "@blksnap/api";
import { listeningSocket } from "@blksnap/uring";
import type { Logger } from "pino";

/** The first passed descriptor: SD_LISTEN_FDS_START. */
const PASSED_FD = 3;
/** More than our units have; each costs a duplicate in each daemon. */
const PASSED_MAX = 16;
/** In place of LISTEN_PID: processes that a supervisor starts have other ids. */
const FROM_SUPERVISOR = { count: "BLKSNAP_LISTEN_FDS", names: "BLKSNAP_LISTEN_FDNAMES" };
const FROM_MANAGER = { count: "LISTEN_FDS", names: "LISTEN_FDNAMES" };
/** The control socket is named by its unit, or by whatever an administrator's unit sets. */
const NBD_NAME = "nbd";
const NBD_TCP_NAME = "nbd-tcp";

type Environment = Record<string, string | undefined>;

export interface PassedSocket {
  readonly fd: number;
  /** FileDescriptorName= of its unit; empty without one. */
  readonly name: string;
}

/** A passed socket that listens at a TCP address. */
export interface PassedTcpSocket extends TcpAddress {
  readonly fd: number;
}

/** The use of a passed unix socket. */
export type SocketUse = "control" | "nbd";

/** What the daemon serves on; what is missing it creates itself. */
export interface UsableSockets extends Partial<Record<SocketUse, number>> {
  readonly tcp: readonly PassedTcpSocket[];
}

function useOf({ name }: PassedSocket): SocketUse | "tcp" {
  if (name === NBD_TCP_NAME) return "tcp";
  return name === NBD_NAME ? "nbd" : "control";
}

/** The descriptors from PASSED_FD on that are for this process. */
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

/** Removes the variables from the environment: they are not for child processes. */
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
 * Descriptors that a supervisor can pass on. The control socket comes first, where a daemon of an earlier version
 * expects it.
 */
export function passableSockets(passed: readonly PassedSocket[]): PassedSocket[] {
  const open = passed.filter(({ fd }) => isOpen(fd));
  return open.sort((one, other) => useOf(one).localeCompare(useOf(other)));
}

/** For a process that receives the descriptors, in their order, from PASSED_FD on. */
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

/** Why it cannot be used at this path; undefined if it can. */
function problemOf(fd: number, path: string): string | undefined {
  try {
    const found = listeningSocket(fd);
    if (found.family === "tcp") return `it listens at TCP ${tcpAddressText(found)}`;
    return found.path === path ? undefined : `it listens at ${found.path}`;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Adds the descriptor to `tcp`, or returns why it is not one. */
function addTcp(fd: number, tcp: PassedTcpSocket[]): string | undefined {
  try {
    const found = listeningSocket(fd);
    if (found.family === "unix") return `it listens at ${found.path}`;
    tcp.push({ fd, address: found.address, port: found.port });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

const WANTED: Readonly<Record<SocketUse | "tcp", string>> = {
  control: `it is not the control socket, and its FileDescriptorName is neither ${NBD_NAME} nor ${NBD_TCP_NAME}`,
  nbd: "it is not the NBD socket",
  tcp: "it is not a TCP socket",
};

/**
 * The descriptors to serve on; none for a socket that the daemon creates itself. Unusable ones are logged:
 * ending would gain nothing, because devices need the daemon.
 * @param paths where the unix sockets have to listen
 */
export function usableSockets(
  passed: readonly PassedSocket[],
  paths: Readonly<Record<SocketUse, string>>,
  logger: Logger,
): UsableSockets {
  const used: Partial<Record<SocketUse, number>> = {};
  const tcp: PassedTcpSocket[] = [];
  for (const socket of passed) {
    const problem = use(socket);
    if (problem === undefined) continue;
    const text = "a socket of the service manager is not used";
    logger.warn({ ...socket, problem }, text);
  }
  return { ...used, tcp };

  /** @returns why it is not used */
  function use(socket: PassedSocket): string | undefined {
    const { fd } = socket;
    const kind = useOf(socket);
    if (kind === "tcp") {
      const why = addTcp(fd, tcp);
      return why === undefined ? undefined : `${WANTED.tcp}: ${why}`;
    }
    const why = problemOf(fd, paths[kind]);
    if (why !== undefined) return `${WANTED[kind]}, ${paths[kind]}: ${why}`;
    if (used[kind] !== undefined) return "another one was passed for it";
    used[kind] = fd;
    return undefined;
  }
}
