/** Zoned disks (SMR, ZNS) take writes only at each zone's end; fronts, and slots of old data, are written anywhere. */
import { type DeviceNumber, deviceKey } from "./device-number.js";
import { queueAttribute } from "./sysfs-text.js";

/** Whether a device has zones that must be written in sequence; a partition is as its disk. */
export function isZoned(device: DeviceNumber, sysfs = "/sys"): boolean {
  return queueAttribute(deviceKey(device), "zoned", sysfs) === "host-managed";
}
