/**
 * The daemon's Unix socket: prepared under a temporary name, then linked into place in one step, so that no client
 * meets it with wrong permissions and no two daemons own it.
 */
import { existsSync, readFileSync } from "node:fs";
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  rename,
  rm,
  unlink,
} from "node:fs/promises";
import { connect } from "node:net";
import { basename, dirname, join } from "node:path";
import { ControlError } from "@blksnap/api";

/** Members of this group may use the daemon's sockets. */
export const SOCKET_GROUP = "blksnap";
/** Linux stores 108 bytes for the path of a socket, one of them a zero. */
const SOCKET_PATH_MAX_BYTES = 107;
const PROBE_TIMEOUT_MS = 2000;
/** Creator of a temporary file: the process id, in few characters. */
const OWN_MARK = process.pid.toString(36);

/** Numeric id of a group of this host; undefined if it does not exist. */
function groupId(name: string): number | undefined {
  let groups: string;
  try {
    groups = readFileSync("/etc/group", "utf8");
  } catch {
    return undefined;
  }
  const line = groups.split("\n").find((entry) => entry.startsWith(`${name}:`));
  const id = Number(line?.split(":")[2]);
  return line !== undefined && Number.isInteger(id) ? id : undefined;
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  try {
    const stat = await lstat(path, { bigint: true });
    if (!stat.isSocket()) {
      throw new ControlError("SOCKET_FAILED", `${path} exists and is not a socket`);
    }
    return stat.ino;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Whether a process accepts connections at the path. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((done, fail) => {
    const socket = connect(path);
    // A stopped or overloaded process still owns its socket.
    const timer = setTimeout(() => finish(true), PROBE_TIMEOUT_MS);
    function finish(answered: boolean): void {
      clearTimeout(timer);
      socket.destroy();
      done(answered);
    }
    socket.once("connect", () => finish(true));
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED") finish(false);
      else if (error.code === "EAGAIN") finish(true);
      else {
        clearTimeout(timer);
        fail(error);
      }
    });
  });
}

function alreadyRunning(path: string): ControlError {
  return new ControlError("ALREADY_RUNNING", `a daemon is already running at ${path}`);
}

/** Removes the socket of a dead daemon; fails if a live one accepts connections. */
async function removeStale(path: string): Promise<void> {
  const inode = await inodeOf(path);
  if (inode === undefined) return;
  if (await isAnswered(path)) throw alreadyRunning(path);
  const aside = `${path}.${OWN_MARK}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  const moved = await inodeOf(aside);
  if (moved !== inode) {
    // Another daemon has created its socket between the check and the rename.
    await rename(aside, path);
    throw alreadyRunning(path);
  }
  await unlink(aside);
}

/** Removes the temporary files of daemons that were killed meanwhile. */
async function removeDeadSockets(path: string): Promise<void> {
  const folder = dirname(path);
  const aside = `${basename(path)}.`;
  for (const name of await readdir(folder)) {
    const [, hidden] = /^\.b([0-9a-z]{1,5})-.{6}$/.exec(name) ?? [];
    const owner = name.startsWith(aside) ? name.slice(aside.length) : hidden;
    if (owner === undefined || !/^[0-9a-z]{1,5}$/.test(owner)) continue;
    if (existsSync(`/proc/${Number.parseInt(owner, 36)}`)) continue;
    const left = await lstat(join(folder, name)).catch(() => undefined);
    const isOurs = hidden === undefined ? left?.isSocket() : left?.isDirectory();
    if (isOurs) await rm(join(folder, name), { recursive: true, force: true });
  }
}

async function allowGroup(socket: string, group: string): Promise<void> {
  const gid = groupId(group);
  const isRoot = process.geteuid?.() === 0;
  if (gid !== undefined && isRoot) await chown(socket, 0, gid);
  await chmod(socket, gid !== undefined && isRoot ? 0o660 : 0o600);
}

export interface ClaimedSocket {
  /** Removes the socket's name, unless it now belongs to another daemon. */
  release(): Promise<void>;
}

/**
 * Makes `listen` listen on a socket that then appears at `path`, open to root and to `group` (if that group exists
 * and the daemon is root).
 * @throws ControlError ALREADY_RUNNING if another daemon serves there, SOCKET_FAILED if the path cannot be used
 */
export async function claimSocket(
  path: string,
  group: string,
  listen: (path: string) => Promise<unknown>,
): Promise<ClaimedSocket> {
  const made = await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  // The parent's umask must not close it to the group.
  if (made !== undefined) await chmod(dirname(path), 0o755);
  await removeDeadSockets(path);
  const hidden = await mkdtemp(join(dirname(path), `.b${OWN_MARK}-`));
  try {
    const fresh = join(hidden, "s");
    if (Buffer.byteLength(path) > SOCKET_PATH_MAX_BYTES || fresh.length > SOCKET_PATH_MAX_BYTES) {
      throw new ControlError("SOCKET_FAILED", `the socket's path is too long: ${path}`);
    }
    await removeStale(path);
    await listen(fresh);
    await allowGroup(fresh, group);
    const inode = await inodeOf(fresh);
    await link(fresh, path).catch((error: NodeJS.ErrnoException) => {
      throw error.code === "EEXIST" ? alreadyRunning(path) : error;
    });
    return {
      release: async () => {
        const current = await inodeOf(path).catch(() => undefined);
        if (current !== undefined && current === inode) await rm(path, { force: true });
      },
    };
  } finally {
    await rm(hidden, { recursive: true, force: true });
  }
}
