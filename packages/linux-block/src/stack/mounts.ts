/** The file systems that users have mounted. */
import { readFileSync, statSync } from "node:fs";
import { keyOfNumber } from "../device-number.js";
import { type Mount, parseMountinfo } from "./mountinfo.js";

/** The system from its users' view, whatever namespace the daemon has. */
export interface SystemView {
  /** Where sysfs is mounted. */
  readonly sysfs: string;
  readMounts(): Mount[];
  /** "major:minor" of a block device's node in the users' root. */
  deviceNumber(path: string): string | undefined;
}

/** The mount namespace of pid 1: the daemon may live in one of its own. */
const USERS_ROOT = "/proc/1/root";
const USERS_MOUNTINFO = "/proc/1/mountinfo";

export const USERS_VIEW: SystemView = {
  sysfs: "/sys",
  readMounts: () => parseMountinfo(readFileSync(USERS_MOUNTINFO, "latin1")),
  deviceNumber(path) {
    const stat = statSync(`${USERS_ROOT}${path}`, { throwIfNoEntry: false });
    if (stat === undefined || !stat.isBlockDevice()) return undefined;
    return keyOfNumber(stat.rdev);
  },
};
