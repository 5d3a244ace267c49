/**
 * Writes to a pipe or a socket without ever waiting for its reader. O_NONBLOCK would not do: it affects everybody who
 * shares the open file.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { UringError } from "./errors.js";
import { native } from "./native.js";

/**
 * Writes as many bytes as there is space for, and returns their number.
 * @throws an error with its errno: EAGAIN if there is no space
 */
export type WriteNow = (bytes: Uint8Array) => number;

/**
 * - A pipe is opened again, which makes another open file that does not block.
 * - A socket cannot be opened again; each call requests not to block.
 * - Anything else is written to directly: it needs no reader.
 */
export function unblockedWriter(fd: number): WriteNow {
  if (isSocket(fd)) return (bytes) => sendNow(fd, bytes);
  const own = unblockedPipe(fd);
  return (bytes) => writeSync(own, bytes);
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

function unblockedPipe(fd: number): number {
  try {
    if (!fstatSync(fd).isFIFO()) return fd;
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}

/** @throws UringError SYSTEM_CALL_FAILED */
function sendNow(fd: number, bytes: Uint8Array): number {
  const sent = native.sendNow(fd, bytes);
  if (sent < 0) throw new UringError("SYSTEM_CALL_FAILED", `cannot send to socket ${fd}`, sent);
  return sent;
}
