/** What a process in the data path of mounted file systems needs from the kernel. */
import { readFileSync, writeFileSync } from "node:fs";
import { errnoName } from "@blksnap/errors";
import { becomeIoFlusher, lockMemory, prctl } from "@blksnap/uring";
import type { Logger } from "pino";

/** `include/uapi/linux/prctl.h` */
const PR_SET_DUMPABLE = 4;
/** The kernel's out-of-memory killer passes over a process with this score. */
const OOM_SCORE_NEVER = "-1000";

/**
 * Keeps the program's own pages (node, its libraries, the addon) in memory: one that was dropped is
 * read again from its file, which may lie on a device of ours. The JavaScript heap cannot be locked;
 * it must be kept from swap by the service manager. Answers a problem, or undefined.
 */
function lockProgram(): string | undefined {
  for (const line of readFileSync("/proc/self/maps", "utf8").split("\n")) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ \S+ +\//.exec(line);
    if (mapping === null) continue;
    const start = Number.parseInt(mapping[1] as string, 16);
    const status = lockMemory(start, Number.parseInt(mapping[2] as string, 16) - start);
    if (status < 0) return `mlock of ${line}: ${errnoName(status)}`;
  }
  return undefined;
}

/** Keeps the out-of-memory killer away, from children too. Answers a problem, or undefined. */
export function stayAlive(): string | undefined {
  try {
    writeFileSync("/proc/self/oom_score_adj", OOM_SCORE_NEVER);
    return undefined;
  } catch (error) {
    return `oom_score_adj: ${(error as NodeJS.ErrnoException).code}`;
  }
}

/**
 * No memory dump after a crash: a process that dumps has not ended, so its devices wait for the dump,
 * and the dump may be written to a file system on one of them. Answers a problem, or undefined.
 */
function dieWithoutDump(): string | undefined {
  const status = prctl(PR_SET_DUMPABLE, 0);
  return status < 0 ? `PR_SET_DUMPABLE: ${errnoName(status)}` : undefined;
}

/**
 * Does all that for the daemon; it serves without it too, but says what is missing.
 * @param isOptional no file system of this machine need lie on what it serves: what a user may not do is not a matter
 */
export function prepareProcess(logger: Logger, isOptional = false): void {
  const isUser = process.geteuid?.() !== 0;
  const problems = [becomeIoFlusher(), lockProgram(), stayAlive()];
  // What a user's process has open would be closed to itself, too, below /proc/self.
  if (!(isOptional && isUser)) problems.push(dieWithoutDump());
  for (const problem of problems) {
    if (problem === undefined) continue;
    const text = "not fully protected: run as root, with unlimited memlock";
    logger[isOptional ? "debug" : "warn"]({ problem }, text);
  }
}

/**
 * The last act of systemd, systemd-shutdown, kills all processes before it unmounts what is still mounted; one whose
 * name begins so lives on. To be called when fronts are still in use then: without a server they would
 * never be unmounted, and what was written to them last would be lost.
 */
export function surviveFinalKill(): void {
  process.title = "@blksnapd";
}
