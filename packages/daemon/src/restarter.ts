/** Finds what starts the next daemon when this one leaves without a supervisor. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { ControlError } from "@blksnap/api";

const SYSTEMCTL_TIMEOUT_MS = 5_000;
/** Values of `Restart=` that start a service again after an exit status above 0. */
const RESTARTS = ["always", "on-failure"];

export interface ServiceSurroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly pid: number;
  /** Text of /proc/self/cgroup. */
  readonly cgroup: string;
  /** The value of a service's property. */
  readonly property: (unit: string, name: string) => Promise<string>;
}

export const OWN_SURROUNDINGS: ServiceSurroundings = {
  environment: process.env,
  pid: process.pid,
  get cgroup() {
    return readFileSync("/proc/self/cgroup", "utf8");
  },
  property: (unit, name) =>
    new Promise((resolve, reject) => {
      execFile(
        "systemctl",
        ["show", "--property", name, "--value", unit],
        { timeout: SYSTEMCTL_TIMEOUT_MS },
        (error, stdout) => (error === null ? resolve(stdout.trim()) : reject(error)),
      );
    }),
};

/**
 * The systemd service whose main process this is, if systemd restarts it when it leaves.
 * @throws ControlError UPGRADE_UNATTENDED if nothing would start the next daemon, with the reason
 */
export async function restartingService(given: ServiceSurroundings): Promise<string> {
  // Other processes of a service inherit INVOCATION_ID; this variable names the main process.
  if (given.environment["SYSTEMD_EXEC_PID"] !== String(given.pid)) {
    throw unattended("blksnapd was started without --supervise, and not by systemd");
  }
  const unit = /([^/]+\.service)$/m.exec(given.cgroup)?.[1];
  if (unit === undefined) throw unattended("the service of this process is unknown");
  let restart: string;
  try {
    restart = await given.property(unit, "Restart");
  } catch (error) {
    throw unattended(`systemctl does not show ${unit}: ${(error as Error).message}`);
  }
  if (!RESTARTS.includes(restart)) throw unattended(`${unit} has Restart=${restart}`);
  return unit;
}

function unattended(why: string): ControlError {
  return new ControlError("UPGRADE_UNATTENDED", `nothing would start the next daemon: ${why}`);
}
