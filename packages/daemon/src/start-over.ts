/** Gives the process as many threads as it needs, all marked as I/O flushers. */
import { becomeIoFlusher, isIoFlusher, replaceProcess } from "@blksnap/uring";
import { passedSockets } from "./passed-sockets.js";

/**
 * Node starts threads before any script runs. So an unmarked process marks itself and executes itself again as the
 * same process: the mark survives execve(2), and all new threads get it; and so it does if the number of threads was
 * not in its environment. Returns the problem, or undefined if there was nothing to do.
 */
export function startOver(hasPool: boolean): string | undefined {
  const isMarked = isIoFlusher() !== false || becomeIoFlusher() !== undefined;
  if (isMarked && hasPool) return undefined;
  try {
    const words = [...process.execArgv, ...process.argv.slice(1)];
    return replaceProcess(process.execPath, words, passedSockets(process.env, process.pid).length);
  } catch (error) {
    // For example, another version has replaced the program; the running one still works.
    const what = "the threads that node has started are too few, or not I/O flushers";
    return `${what}: ${(error as Error).message}`;
  }
}
