/** Threads that write back for others (prctl(2), PR_SET_IO_FLUSHER). */
import { errnoName } from "@blksnap/errors";
import { prctl } from "./system.js";

/** `include/uapi/linux/prctl.h` */
const PR_SET_IO_FLUSHER = 57;
const PR_GET_IO_FLUSHER = 58;

/** Whether the calling thread is one; undefined if the kernel does not say, or not to this process. */
export function isIoFlusher(): boolean | undefined {
  const status = prctl(PR_GET_IO_FLUSHER, 0);
  return status < 0 ? undefined : status === 1;
}

/**
 * Marks the calling thread, and its future threads and child processes, as an I/O flusher: the kernel then never lets
 * it wait for its own devices when memory is short. Returns the problem, or undefined. Needs CAP_SYS_RESOURCE.
 */
export function becomeIoFlusher(): string | undefined {
  if (isIoFlusher() === true) return undefined;
  const status = prctl(PR_SET_IO_FLUSHER, 1);
  return status < 0 ? `PR_SET_IO_FLUSHER: ${errnoName(status)}` : undefined;
}
