/**
 * Whether systemd takes the system down, to the firmware: not where another kernel is loaded, which may be
 * started instead (kexec), and would be a boot that no counter of the machine counts.
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

export async function isEndOfBoot(probe: EndOfBootProbe = OWN): Promise<boolean> {
  try {
    if ((await probe.systemState()).trim() !== "stopping") return false;
    const loaded = await probe.kexecLoaded();
    return loaded === undefined || loaded.trim() === "0";
  } catch {
    return false;
  }
}
