/**
 * Writes to a pipe or a socket that never wait for its reader, whatever those want who share it: O_NONBLOCK would hold
 * for the open file, and so for all of them.
 */
import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { UringError } from "./errors.js";
import { native } from "./native.js";

/**
 * Writes what there is room for, and answers how many bytes that are.
 * @throws an error with its errno: EAGAIN where there is no room
 */
export type WriteNow = (bytes: Uint8Array) => number;

/**
 * - A pipe is opened once more, and is another open file then, which does not block.
 * - A socket cannot be opened again, and is told with each call not to block.
 * - Anything else is written to as it is: no reader has to make room there.
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
