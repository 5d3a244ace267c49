import { constants } from "node:fs";
import { open, readdir, readFile, realpath, stat } from "node:fs/promises";
import {
  type DeviceNumber,
  deviceKey,
  deviceNumber,
  keyOfNumber,
  parseDevice,
} from "../device-number.js";

/** What is at a path, as far as the search for devices needs it. */
export interface PathTarget {
  /** The path without symbolic links. */
  readonly realPath: string;
  /** Device number of the file system the path lies on; major 0 when it is not a device's. */
  readonly device: DeviceNumber;
  /** Set when the path is a block device: its own number. */
  readonly blockDevice: DeviceNumber | undefined;
  /** The same for all names, hard links included: see fileIdentity(), blockIdentity(). */
  readonly identity: string;
}

/** A file, by what it is and not by what it is called. */
export interface KnownFile {
  readonly identity: string;
  /** Device number of its file system; major 0 when it is not a device's. */
  readonly device: DeviceNumber;
  /** A name that it has, or had. */
  readonly path: string;
}

/** Where a search for devices begins, or continues. */
export type DeviceOrFile = DeviceNumber | KnownFile;

/** What the kernel says of the file or device behind a loop device. */
export interface LoopBacking {
  readonly device: DeviceNumber;
  /** Of a block device behind it. */
  readonly blockDevice: DeviceNumber | undefined;
  readonly identity: string;
}

/** Where the search for devices looks; each part may be replaced in tests. */
export interface TopologyProbe {
  /** Root of sysfs. Default "/sys". */
  readonly sysfsRoot?: string;
  /** Root of procfs. Default "/proc". */
  readonly procRoot?: string;
  /** Mounts as this process sees them. Default "/proc/self/mountinfo". */
  readonly mountinfoPath?: string;
  /** Looks at a path. Default: stat(2). */
  readonly lookAt?: (path: string) => Promise<PathTarget>;
  /**
   * Devices and files that a device of this process lies on, which sysfs cannot know: a front and the
   * original behind it, an image and its original. Undefined for a device that another process serves.
   */
  readonly layers?: (device: DeviceNumber) => readonly DeviceOrFile[] | undefined;
  /**
   * Asks the kernel what is behind a loop device, whatever became of its name; undefined where it does
   * not say. Default: the name in sysfs decides.
   */
  readonly loopBacking?: (node: string, device: DeviceNumber) => Promise<LoopBacking | undefined>;
  /** Reads a part of a device. Default: read(2), which waits as long as the device takes. */
  readonly readDevice?: ReadDevice;
  /** Tables of what this host exports by NFS. Default: those of the kernel and of exportfs(8). */
  readonly exportTables?: readonly string[];
}

/**
 * Reads a part of the device that has this number; `node` is its name. Rejects with the error of node:fs,
 * ENODEV where the name is another device's.
 */
export type ReadDevice = (
  node: string,
  device: DeviceNumber,
  startBytes: number,
  lengthBytes: number,
) => Promise<Buffer>;

/** A part of a device or file. */
export interface ByteRange {
  readonly startBytes: number;
  readonly endBytes: number;
}

/** What sysfs says about one block device. */
export interface SysfsDevice {
  readonly device: DeviceNumber;
  /** "/dev/sda1", "/dev/mapper/vg-root", or "MAJOR:MINOR" where the device has no name. */
  readonly name: string;
  /** As the kernel calls it, such as "dm-3". */
  readonly kernelName: string;
  /** Undefined where sysfs does not say. */
  readonly sizeBytes: number | undefined;
  /** The whole disk, for a partition. */
  readonly partitionOf: DeviceNumber | undefined;
  /** Where on the disk a partition lies, where sysfs says so. */
  readonly range: ByteRange | undefined;
  /** Devices that device-mapper, md, bcache and the like put this one together from. */
  readonly slaves: readonly DeviceNumber[];
  /** Of a device-mapper device. */
  readonly dmUuid: string | undefined;
  /** World-wide name of a whole disk: two paths to it have the same. */
  readonly worldWideName: string | undefined;
  /** File or device behind a loop device, a zram device. */
  readonly backingPath: string | undefined;
  /** The part of it that a loop device shows; undefined for all. */
  readonly backingRange: ByteRange | undefined;
  /** Process that serves an nbd device. */
  readonly serverPid: number | undefined;
}

const SECTOR_BYTES = 512;
/** Designators that no two disks share; others are made up of models and serial numbers. */
const WORLD_WIDE = /^(naa|eui|uuid|nvme)\.[0-9a-f-]{16,}$/i;

/** @param device as stat(2) tells it */
export function fileIdentity(device: number, inode: number): string {
  return `file:${device}:${inode}`;
}

/** @param key "major:minor" */
export function blockIdentity(key: string): string {
  return `block:${key}`;
}

/** The text of a file without its last newline; undefined where there is none. */
export async function readText(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").then(
    (text) => text.replace(/\n$/, ""),
    () => undefined,
  );
}

export async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((): string[] => []);
}

async function readNumber(path: string): Promise<number | undefined> {
  const text = await readText(path);
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
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
  const sectors = await readNumber(`${dir}/size`);
  const sizeBytes = sectors === undefined ? undefined : sectors * SECTOR_BYTES;
  const zram = await readText(`${dir}/backing_dev`);
  const loop = await readText(`${dir}/loop/backing_file`);
  return {
    device,
    name: mapperName === undefined ? `/dev/${kernelName}` : `/dev/mapper/${mapperName}`,
    kernelName,
    sizeBytes,
    partitionOf: isPartition ? parseDevice(await readText(`${dir}/../dev`)) : undefined,
    range: isPartition ? await partitionRange(dir, sizeBytes) : undefined,
    slaves: await slavesIn(dir),
    dmUuid: await readText(`${dir}/dm/uuid`),
    worldWideName: isPartition ? undefined : await worldWideNameIn(dir),
    backingPath: loop ?? (zram === undefined || zram === "none" ? undefined : zram),
    backingRange: loop === undefined ? undefined : await loopRange(dir),
    serverPid: kernelName.startsWith("nbd") ? await readNumber(`${dir}/pid`) : undefined,
  };
}

async function slavesIn(dir: string): Promise<DeviceNumber[]> {
  const slaves: DeviceNumber[] = [];
  for (const name of await namesIn(`${dir}/slaves`)) {
    const slave = parseDevice(await readText(`${dir}/slaves/${name}/dev`));
    if (slave !== undefined) slaves.push(slave);
  }
  return slaves;
}

async function partitionRange(
  dir: string,
  sizeBytes: number | undefined,
): Promise<ByteRange | undefined> {
  const start = await readNumber(`${dir}/start`);
  if (start === undefined || sizeBytes === undefined) return undefined;
  const startBytes = start * SECTOR_BYTES;
  return { startBytes, endBytes: startBytes + sizeBytes };
}

async function loopRange(dir: string): Promise<ByteRange | undefined> {
  const startBytes = (await readNumber(`${dir}/loop/offset`)) ?? 0;
  const limit = (await readNumber(`${dir}/loop/sizelimit`)) ?? 0;
  if (startBytes === 0 && limit === 0) return undefined;
  return { startBytes, endBytes: limit === 0 ? Number.POSITIVE_INFINITY : startBytes + limit };
}

async function worldWideNameIn(dir: string): Promise<string | undefined> {
  const name = (await readText(`${dir}/wwid`)) ?? (await readText(`${dir}/device/wwid`));
  return name !== undefined && WORLD_WIDE.test(name) ? name : undefined;
}

/** The number of the device that the kernel calls so; undefined when there is none. */
export async function deviceNamed(
  sysfsRoot: string,
  kernelName: string,
): Promise<DeviceNumber | undefined> {
  return parseDevice(await readText(`${sysfsRoot}/class/block/${kernelName}/dev`));
}

/** Looks at a path with stat(2). Rejects with the error of node:fs. */
export async function lookAtPath(path: string): Promise<PathTarget> {
  const realPath = await realpath(path);
  const stats = await stat(realPath);
  const blockDevice = stats.isBlockDevice() ? deviceNumber(stats.rdev) : undefined;
  return {
    realPath,
    device: deviceNumber(stats.dev),
    blockDevice,
    identity:
      blockDevice === undefined
        ? fileIdentity(stats.dev, stats.ino)
        : blockIdentity(deviceKey(blockDevice)),
  };
}

/** Reads a part of a device with read(2). @see ReadDevice */
export async function readFromDevice(
  node: string,
  device: DeviceNumber,
  startBytes: number,
  lengthBytes: number,
): Promise<Buffer> {
  const file = await open(node, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    if (!stats.isBlockDevice() || keyOfNumber(stats.rdev) !== deviceKey(device)) {
      throw Object.assign(new Error(`ENODEV: ${node} is another device`), { code: "ENODEV" });
    }
    const { buffer, bytesRead } = await file.read(
      Buffer.alloc(lengthBytes),
      0,
      lengthBytes,
      startBytes,
    );
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
