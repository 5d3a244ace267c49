/** The address of a listening descriptor from another process; node:net knows only its own. */
import { existsSync, fstatSync, readFileSync } from "node:fs";
import { UringError } from "./errors.js";

const ENOTSOCK = 88;
const EINVAL = 22;
const EOPNOTSUPP = 95;
/** __SO_ACCEPTCON of the kernel, in a line of /proc/net/unix: it listens. */
const LISTENS = 0x10000;
/** TCP_LISTEN, in a line of /proc/net/tcp. */
const TCP_LISTEN = "0A";
/** Types of unix sockets other than streams. */
const OTHER_TYPES: Readonly<Record<string, string>> = { "0002": "datagram", "0005": "seqpacket" };

export type ListeningSocket =
  | { readonly family: "unix"; readonly path: string }
  | { readonly family: "tcp"; readonly address: string; readonly port: number };

function notListening(fd: number, why: string, errno: number, cause?: unknown): UringError {
  return new UringError("NOT_LISTENING", `descriptor ${fd} ${why}`, errno, cause);
}

const UNIX_LINE = /^\S+ \S+ \S+ (?<flags>\S+) (?<type>\S+) \S+ +(?<inode>\d+)(?: (?<path>.*))?$/;
const TCP_LINE =
  /^ *\S+ (?<address>[0-9A-F]+):(?<port>\S+) \S+ (?<state>\S+) \S+ \S+ \S+ +\S+ +\S+ (?<inode>\d+) /;

function fieldsOf(
  file: string,
  form: RegExp,
  inode: string,
): Record<string, string | undefined> | undefined {
  for (const line of readFileSync(file, "utf8").split("\n")) {
    const { groups } = form.exec(line) ?? {};
    if (groups?.["inode"] === inode) return groups;
  }
  return undefined;
}

/** The kernel prints words of an address as they lie in memory, which is little-endian here. */
function wordBytes(hex: string): number[] {
  return [6, 4, 2, 0].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

function ipv6(hex: string): string {
  const bytes = [0, 8, 16, 24].flatMap((at) => wordBytes(hex.slice(at, at + 8)));
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[2 * index] ?? 0) << 8) | (bytes[2 * index + 1] ?? 0)).toString(16),
  );
  // In the usual short form.
  return new URL(`tcp://[${groups.join(":")}]`).hostname.slice(1, -1);
}

function unixSocket(fd: number, inode: string): ListeningSocket | undefined {
  const fields = fieldsOf("/proc/net/unix", UNIX_LINE, inode);
  if (fields === undefined) return undefined;
  const { flags = "", type = "", path = "" } = fields;
  const other = OTHER_TYPES[type];
  if (other !== undefined) throw notListening(fd, `is a ${other} socket`, EOPNOTSUPP);
  const isListening = (Number.parseInt(flags, 16) & LISTENS) !== 0;
  if (!isListening) throw notListening(fd, "is a unix socket that does not listen", EINVAL);
  return { family: "unix", path };
}

function tcpSocket(inode: string): ListeningSocket | undefined {
  for (const file of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    // A kernel without IPv6 has no file for it.
    const fields = existsSync(file) ? fieldsOf(file, TCP_LINE, inode) : undefined;
    const { address: hex = "", port = "", state } = fields ?? {};
    if (state !== TCP_LISTEN) continue;
    const address = hex.length === 8 ? wordBytes(hex).join(".") : ipv6(hex);
    return { family: "tcp", address, port: Number.parseInt(port, 16) };
  }
  return undefined;
}

/**
 * Of a unix or TCP stream socket. The path of an abstract unix socket begins with "@"; without a name it is empty.
 * @throws UringError NOT_LISTENING with EBADF, ENOTSOCK, EOPNOTSUPP or EINVAL
 */
export function listeningSocket(fd: number): ListeningSocket {
  let inode: string;
  try {
    const stat = fstatSync(fd, { bigint: true });
    if (!stat.isSocket()) throw notListening(fd, "is not a socket", ENOTSOCK);
    inode = String(stat.ino);
  } catch (error) {
    if (error instanceof UringError) throw error;
    const { errno = 0 } = error as NodeJS.ErrnoException;
    throw notListening(fd, "is not open", errno, error);
  }
  const socket = unixSocket(fd, inode) ?? tcpSocket(inode);
  if (socket === undefined) {
    throw notListening(fd, "is not a unix or TCP stream socket that listens", EINVAL);
  }
  return socket;
}
