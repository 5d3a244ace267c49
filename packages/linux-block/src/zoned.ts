/** Zoned disks (SMR, ZNS) accept writes only at each zone's write pointer; fronts and stores write anywhere. */
import { type DeviceNumber, deviceKey } from "./device-number.js";
import { queueAttribute } from "./sysfs-text.js";

/** Whether a device has sequential-write zones; a partition is like its disk. */
export function isZoned(device: DeviceNumber, sysfs = "/sys"): boolean {
  return queueAttribute(deviceKey(device), "zoned", sysfs) === "host-managed";
}
