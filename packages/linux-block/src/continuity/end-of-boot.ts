/**
 * Whether systemd shuts the system down, and whether to the firmware. It does not reach the firmware in a soft-reboot,
 * which keeps the kernel, nor in a container, whose host continues. It is uncertain if another kernel is loaded that
 * may be started instead (kexec), a boot that no counter of the machine counts.
 *
 * When all units have stopped, systemd replaces itself, process 1, by systemd-shutdown, which answers no queries; its
 * first argument says what follows.
 *
 * Facts: systemd.special(7), systemd-shutdown(8), /run/systemd/container in "Container Interface" of systemd.io.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";

const SYSTEMCTL_TIMEOUT_MS = 5_000;

export interface EndOfBootProbe {
  /** What `systemctl is-system-running` prints. */
  readonly systemState: () => Promise<string>;
  /** What `systemctl list-jobs` prints. */
  readonly jobs: () => Promise<string>;
  readonly isContainer: () => boolean;
  /** The words with which process 1 was started. */
  readonly firstProcess: () => Promise<readonly string[]>;
  /** Text of /sys/kernel/kexec_loaded; undefined where the kernel has no kexec. */
  readonly kexecLoaded: () => Promise<string | undefined>;
}

/** Units that are waited for until all others have stopped. */
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

/** Its status tells only whether all is well. */
function systemctl(...words: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const options = { timeout: SYSTEMCTL_TIMEOUT_MS };
    execFile("systemctl", words, options, (_, stdout) => resolve(stdout));
  });
}

/** What systemd-shutdown does at its end; undefined where it is not at work. */
async function finalVerb({ firstProcess }: EndOfBootProbe): Promise<string | undefined> {
  const [program = "", verb] = await firstProcess();
  return /(?:^|\/)systemd-shutdown$/.test(program) ? verb : undefined;
}

export async function isGoingDown(probe: EndOfBootProbe = OWN): Promise<boolean> {
  if ((await finalVerb(probe)) !== undefined) return true;
  return (await probe.systemState()).trim() === "stopping";
}

/** Whether it goes down to the firmware. */
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
