/** All threads of the process as I/O flushers. */
import { becomeIoFlusher, isIoFlusher, replaceProcess } from "@blksnap/uring";
import { passedSockets } from "./passed-sockets.js";

/**
 * Node has threads of its own before any script runs. So a process that is not an I/O flusher yet marks
 * itself and starts over as the same process: the mark outlives execve(2), and all threads get it.
 * Answers a problem, or undefined where there was nothing to do.
 */
export function startOverAsIoFlusher(): string | undefined {
  if (isIoFlusher() !== false || becomeIoFlusher() !== undefined) return undefined;
  try {
    const words = [...process.execArgv, ...process.argv.slice(1)];
    return replaceProcess(process.execPath, words, passedSockets(process.env, process.pid).length);
  } catch (error) {
    // The program was replaced by another version, for one: the running one is good all the same.
    return `the threads that node has started are not I/O flushers: ${(error as Error).message}`;
  }
}
