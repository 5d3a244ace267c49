/** Marks all threads of the process as I/O flushers. */
import { becomeIoFlusher, isIoFlusher, replaceProcess } from "@blksnap/uring";
import { passedSockets } from "./passed-sockets.js";

/**
 * Node starts threads before any script runs. So an unmarked process marks itself and executes itself again as the
 * same process: the mark survives execve(2), and all new threads get it. Returns the problem, or undefined if there
 * was nothing to do.
 */
export function startOverAsIoFlusher(): string | undefined {
  if (isIoFlusher() !== false || becomeIoFlusher() !== undefined) return undefined;
  try {
    const words = [...process.execArgv, ...process.argv.slice(1)];
    return replaceProcess(process.execPath, words, passedSockets(process.env, process.pid).length);
  } catch (error) {
    // For example, another version has replaced the program; the running one still works.
    return `the threads that node has started are not I/O flushers: ${(error as Error).message}`;
  }
}
