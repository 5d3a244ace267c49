/** Zoned disks (SMR, ZNS) take writes only at each zone's end; fronts, and slots of old data, are written anywhere. */
import { readFileSync } from "node:fs";
import type { DeviceNumber } from "./device-number.js";

/** Whether a device has zones that must be written in sequence; a partition is as its disk. */
export function isZoned({ major, minor }: DeviceNumber, sysfs = "/sys"): boolean {
  const folder = `${sysfs}/dev/block/${major}:${minor}`;
  // As resolved by the kernel: below the link's end.
  return [`${folder}/queue/zoned`, `${folder}/../queue/zoned`].some(
    (path) => text(path) === "host-managed",
  );
}

function text(path: string): string {
  try {
    return readFileSync(path, "latin1").trim();
  } catch {
    return "";
  }
}
