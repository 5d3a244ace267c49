import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { type DeviceNumber, deviceKey, deviceNumber } from "./store.js";

/** What is at a path, as far as the search for devices needs it. */
export interface PathDevices {
  /** The path without symbolic links. */
  readonly realPath: string;
  /** Device number of the file system the path lies on; major 0 when it is not a device's. */
  readonly device: DeviceNumber;
  /** Set when the path is a block device: its own number. */
  readonly blockDevice: DeviceNumber | undefined;
}

/** Where the search for devices looks; each part may be replaced in tests. */
export interface TopologyProbe {
  /** Root of sysfs. Default "/sys". */
  readonly sysfsRoot?: string;
  /** Mounts as this process sees them. Default "/proc/self/mountinfo". */
  readonly mountinfoPath?: string;
  /** Looks at a path. Default: stat(2). */
  readonly lookAt?: (path: string) => Promise<PathDevices>;
  /**
   * Devices that lie on others through user space, which sysfs cannot know: a front and the original
   * behind it, an image and its original and stores. Default: none.
   */
  readonly layers?: (device: DeviceNumber) => readonly DeviceNumber[];
}

/** What sysfs says about one block device. */
export interface SysfsDevice {
  readonly device: DeviceNumber;
  /** "/dev/sda1", "/dev/mapper/vg-root", or "MAJOR:MINOR" where the device has no name. */
  readonly name: string;
  /** The whole disk, for a partition. */
  readonly partitionOf: DeviceNumber | undefined;
  /** Devices that device-mapper, md, bcache and the like put this one together from. */
  readonly slaves: readonly DeviceNumber[];
  /** File or device behind a loop device, a zram device. */
  readonly backingPath: string | undefined;
}

async function readText(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").then(
    (text) => text.replace(/\n$/, ""),
    () => undefined,
  );
}

function parseNumber(text: string | undefined): DeviceNumber | undefined {
  const match = /^(\d+):(\d+)$/.exec(text?.trim() ?? "");
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}

/** Reads a block device's entry in sysfs; undefined when there is none. */
export async function readSysfsDevice(
  sysfsRoot: string,
  device: DeviceNumber,
): Promise<SysfsDevice | undefined> {
  const key = deviceKey(device);
  const dir = await realpath(`${sysfsRoot}/dev/block/${key}`).catch(() => undefined);
  if (dir === undefined) return undefined;
  const mapperName = await readText(`${dir}/dm/name`);
  const kernelName = dir.slice(dir.lastIndexOf("/") + 1);
  const isPartition = (await readText(`${dir}/partition`)) !== undefined;
  const partitionOf = isPartition ? parseNumber(await readText(`${dir}/../dev`)) : undefined;
  const slaves: DeviceNumber[] = [];
  for (const name of await readdir(`${dir}/slaves`).catch((): string[] => [])) {
    const slave = parseNumber(await readText(`${dir}/slaves/${name}/dev`));
    if (slave !== undefined) slaves.push(slave);
  }
  const zram = await readText(`${dir}/backing_dev`);
  const loop = await readText(`${dir}/loop/backing_file`);
  return {
    device,
    name: mapperName === undefined ? `/dev/${kernelName}` : `/dev/mapper/${mapperName}`,
    partitionOf,
    slaves,
    backingPath: loop ?? (zram === undefined || zram === "none" ? undefined : zram),
  };
}

/** All devices of the btrfs file system that `member` belongs to. */
export async function btrfsDevices(
  sysfsRoot: string,
  member: DeviceNumber,
): Promise<DeviceNumber[]> {
  const base = `${sysfsRoot}/fs/btrfs`;
  for (const uuid of await readdir(base).catch((): string[] => [])) {
    const names = await readdir(`${base}/${uuid}/devices`).catch((): string[] => []);
    const devices: DeviceNumber[] = [];
    for (const name of names) {
      const device = parseNumber(await readText(`${base}/${uuid}/devices/${name}/dev`));
      if (device !== undefined) devices.push(device);
    }
    if (devices.some((device) => deviceKey(device) === deviceKey(member))) return devices;
  }
  return [member];
}

/** Looks at a path with stat(2). Rejects with the error of node:fs. */
export async function lookAtPath(path: string): Promise<PathDevices> {
  const realPath = await realpath(path);
  const stats = await stat(realPath);
  return {
    realPath,
    device: deviceNumber(stats.dev),
    blockDevice: stats.isBlockDevice() ? deviceNumber(stats.rdev) : undefined,
  };
}
