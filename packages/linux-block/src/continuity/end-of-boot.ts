/**
 * Whether systemd shuts the system down, and whether down to the firmware. A soft-reboot, which keeps the kernel, and
 * a container, whose host continues, do not reach the firmware. It is uncertain if another kernel is loaded that may
 * be started instead (kexec), a boot that no counter of the machine counts.
 *
 * When all units have stopped, systemd replaces itself, process 1, by systemd-shutdown, which answers no queries; its
 * first argument names the next step.
 *
 * Facts: systemd.special(7), systemd-shutdown(8), /run/systemd/container in "Container Interface" of systemd.io.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";

const SYSTEMCTL_TIMEOUT_MS = 5_000;

export interface EndOfBootProbe {
  /** Output of `systemctl is-system-running`. */
  readonly systemState: () => Promise<string>;
  /** Output of `systemctl list-jobs`. */
  readonly jobs: () => Promise<string>;
  readonly isContainer: () => boolean;
  /** Command line of process 1. */
  readonly firstProcess: () => Promise<readonly string[]>;
  /** Text of /sys/kernel/kexec_loaded; undefined if the kernel has no kexec. */
  readonly kexecLoaded: () => Promise<string | undefined>;
}

/** Jobs of these units stay until all others have stopped. */
const LAST_JOB = /(?:^|\s)(?:poweroff|reboot|halt)\.target\s+start\s/m;
const SOFT_JOB = /(?:^|\s)soft-reboot\.target\s+start\s/m;

const OWN: EndOfBootProbe = {
  systemState: () => systemctl("is-system-running"),
  jobs: () => systemctl("list-jobs", "--no-legend", "--no-pager", "--plain"),
  isContainer: () => existsSync("/run/systemd/container"),
  firstProcess: async () => (await readFile("/proc/1/cmdline", "utf8")).split("\0"),
  kexecLoaded: async () => {
    try {
      return await readFile("/sys/kernel/kexec_loaded", "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  },
};

/** Its exit status only says whether all is well. */
function systemctl(...words: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const options = { timeout: SYSTEMCTL_TIMEOUT_MS };
    execFile("systemctl", words, options, (_, stdout) => resolve(stdout));
  });
}

/** The last action of systemd-shutdown; undefined if it does not run. */
async function finalVerb({ firstProcess }: EndOfBootProbe): Promise<string | undefined> {
  const [program = "", verb] = await firstProcess();
  return /(?:^|\/)systemd-shutdown$/.test(program) ? verb : undefined;
}

export async function isGoingDown(probe: EndOfBootProbe = OWN): Promise<boolean> {
  if ((await finalVerb(probe)) !== undefined) return true;
  return (await probe.systemState()).trim() === "stopping";
}

/** Whether the system shuts down to the firmware. */
export async function isEndOfBoot(probe: EndOfBootProbe = OWN): Promise<boolean> {
  try {
    if (probe.isContainer() || !(await isGoingDown(probe))) return false;
    const verb = await finalVerb(probe);
    const jobs = verb === undefined ? await probe.jobs() : `${verb}.target start `;
    if (!LAST_JOB.test(jobs) || SOFT_JOB.test(jobs)) return false;
    const loaded = await probe.kexecLoaded();
    return loaded === undefined || loaded.trim() === "0";
  } catch {
    return false;
  }
}
