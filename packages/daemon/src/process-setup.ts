/** Prepares a process that is in the data path of mounted file systems. */
import { readFileSync, writeFileSync } from "node:fs";
import { errnoName } from "@blksnap/errors";
import { becomeIoFlusher, lockMemory, prctl } from "@blksnap/uring";
import type { Logger } from "pino";

/** `include/uapi/linux/prctl.h` */
const PR_SET_DUMPABLE = 4;
/** The kernel's out-of-memory killer skips a process with this score. */
const OOM_SCORE_NEVER = "-1000";

/**
 * Locks the program's pages (node, its libraries, the addon) in memory: a dropped page is read again from its file,
 * which may be on a device of this daemon. The JavaScript heap cannot be locked; the service manager must keep it
 * from swap. Returns the problem, or undefined.
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

/** Exempts the process and its children from the out-of-memory killer. Returns the problem, or undefined. */
export function stayAlive(): string | undefined {
  try {
    writeFileSync("/proc/self/oom_score_adj", OOM_SCORE_NEVER);
    return undefined;
  } catch (error) {
    return `oom_score_adj: ${(error as NodeJS.ErrnoException).code}`;
  }
}

/**
 * Disables core dumps: the process ends only after its dump, so its devices would wait, and the dump may be written
 * to a file system on one of them. Returns the problem, or undefined.
 */
function dieWithoutDump(): string | undefined {
  const status = prctl(PR_SET_DUMPABLE, 0);
  return status < 0 ? `PR_SET_DUMPABLE: ${errnoName(status)}` : undefined;
}

/**
 * Applies all of this to the daemon, which serves without it, too, but logs what is missing.
 * @param isOptional no file system of this machine depends on the daemon: a lack of rights is not logged
 */
export function prepareProcess(logger: Logger, isOptional = false): void {
  const isUser = process.geteuid?.() !== 0;
  const problems = [becomeIoFlusher(), lockProgram(), stayAlive()];
  // Otherwise the process could not open its own descriptors below /proc/self.
  if (!(isOptional && isUser)) problems.push(dieWithoutDump());
  for (const problem of problems) {
    if (problem === undefined) continue;
    const text = "not fully protected: run as root, with unlimited memlock";
    logger[isOptional ? "debug" : "warn"]({ problem }, text);
  }
}

/**
 * The last step of a shutdown, systemd-shutdown, kills all processes before it unmounts what is still mounted, except
 * those with such a name. Call this if fronts are still in use then: without a server they could never be unmounted,
 * and the last writes to them would be lost.
 */
export function surviveFinalKill(): void {
  process.title = "@blksnapd";
}
