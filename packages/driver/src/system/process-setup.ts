/** What a process in the data path of mounted file systems needs from the kernel. */
import { readFileSync } from "node:fs";
import { errnoName, lockMemory, prctl } from "@blksnap/uring";
import type { Logger } from "pino";

/** `include/uapi/linux/prctl.h` */
const PR_SET_IO_FLUSHER = 57;
const PR_GET_IO_FLUSHER = 58;
/**
 * Marks the calling thread, and the threads and processes that it makes from now on, as one that
 * writes back for others: the kernel then never lets it wait for its own devices when memory is
 * short. Answers a problem, or undefined. Needs CAP_SYS_RESOURCE.
 */
export function becomeIoFlusher(): string | undefined {
  if (prctl(PR_GET_IO_FLUSHER, 0) === 1) return undefined;
  const status = prctl(PR_SET_IO_FLUSHER, 1);
  return status < 0 ? `PR_SET_IO_FLUSHER: ${errnoName(status)}` : undefined;
}

/**
 * Keeps the program's own pages (node, its libraries, the addon) in memory: one that was dropped is
 * read again from its file, which may lie on a device of ours. The JavaScript heap cannot be locked;
 * it must be kept from swap by the service manager. Answers a problem, or undefined.
 */
export function lockProgram(): string | undefined {
  for (const line of readFileSync("/proc/self/maps", "utf8").split("\n")) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ \S+ +\//.exec(line);
    if (mapping === null) continue;
    const start = Number.parseInt(mapping[1] as string, 16);
    const status = lockMemory(start, Number.parseInt(mapping[2] as string, 16) - start);
    if (status < 0) return `mlock of ${line}: ${errnoName(status)}`;
  }
  return undefined;
}

/** Does both for the daemon; it serves without them too, but says what is missing. */
export function prepareProcess(logger: Logger): void {
  for (const problem of [becomeIoFlusher(), lockProgram()]) {
    if (problem === undefined) continue;
    logger.warn(
      { problem },
      "no protection against memory shortage: run as root, unlimited memlock",
    );
  }
}
