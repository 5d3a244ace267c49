import { statSync } from "node:fs";
import { major, minor } from "@blksnap/ublk";
import { ControlError } from "../control/control-error.js";

/** What a path leads to, whatever its name: "block:MA:MI", or "file:DEVICE:INODE". */
export function identityOf(path: string): string {
  try {
    const stat = statSync(path);
    if (stat.isBlockDevice()) return blockIdentity(`${major(stat.rdev)}:${minor(stat.rdev)}`);
    return `file:${stat.dev}:${stat.ino}`;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ControlError("DEVICE_NOT_FOUND", `${path} does not exist (${code})`, {
      cause: error,
      ...(code === undefined ? {} : { errnoName: code }),
    });
  }
}

/** @param deviceNumber "major:minor" */
export function blockIdentity(deviceNumber: string): string {
  return `block:${deviceNumber}`;
}
