/**
 * Whether systemd takes the system down; and whether to the firmware, which is not sure where another kernel
 * is loaded that may be started instead (kexec), a boot that no counter of the machine counts.
 */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";

const SYSTEMCTL_TIMEOUT_MS = 5_000;

export interface EndOfBootProbe {
  /** What `systemctl is-system-running` prints. */
  readonly systemState: () => Promise<string>;
  /** Text of /sys/kernel/kexec_loaded; undefined where the kernel has no kexec. */
  readonly kexecLoaded: () => Promise<string | undefined>;
}

const OWN: EndOfBootProbe = {
  systemState: () =>
    new Promise((resolve) => {
      const options = { timeout: SYSTEMCTL_TIMEOUT_MS };
      // Its status tells only whether all is well.
      execFile("systemctl", ["is-system-running"], options, (_, stdout) => resolve(stdout));
    }),
  kexecLoaded: async () => {
    try {
      return await readFile("/sys/kernel/kexec_loaded", "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  },
};

export async function isGoingDown(probe: EndOfBootProbe = OWN): Promise<boolean> {
  return (await probe.systemState()).trim() === "stopping";
}

/** Whether it goes down to the firmware. */
export async function isEndOfBoot(probe: EndOfBootProbe = OWN): Promise<boolean> {
  try {
    if (!(await isGoingDown(probe))) return false;
    const loaded = await probe.kexecLoaded();
    return loaded === undefined || loaded.trim() === "0";
  } catch {
    return false;
  }
}
