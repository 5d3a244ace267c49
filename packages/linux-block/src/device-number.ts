/** Number of a block device or of the device a file system reports. */
export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

/** Splits a `st_dev` or `st_rdev` as node:fs reports it. */
export function deviceNumber(dev: number): DeviceNumber {
  const value = BigInt(dev);
  const major = ((value >> 8n) & 0xfffn) | ((value >> 32n) & 0xfffff000n);
  const minor = (value & 0xffn) | ((value >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

/** "MAJOR:MINOR", as sysfs and mountinfo write it. */
export function deviceKey(device: DeviceNumber): string {
  return `${device.major}:${device.minor}`;
}

/** "MAJOR:MINOR" of a `st_dev` or `st_rdev` as node:fs reports it. */
export function keyOfNumber(dev: number): string {
  return deviceKey(deviceNumber(dev));
}

/** What deviceKey() makes, or a line of sysfs; undefined for anything else. */
export function parseDevice(text: string | null | undefined): DeviceNumber | undefined {
  const match = /^(\d+):(\d+)$/.exec(text?.trim() ?? "");
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}
