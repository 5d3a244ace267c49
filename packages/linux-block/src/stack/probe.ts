import { constants } from "node:fs";
import { open, readdir, readFile, realpath, stat } from "node:fs/promises";
import { type DeviceNumber, deviceKey, deviceNumber, keyOfNumber } from "../device-number.js";

/** Facts about a path for the search for devices. */
export interface PathTarget {
  /** The path without symbolic links. */
  readonly realPath: string;
  /** Device number of the path's file system; major 0 if it has no device. */
  readonly device: DeviceNumber;
  /** Set if the path is a block device: its own number. */
  readonly blockDevice: DeviceNumber | undefined;
  /** The same for all names, hard links included: see fileIdentity(), blockIdentity(). */
  readonly identity: string;
}

/** A file by its identity, not its name. */
export interface KnownFile {
  readonly identity: string;
  /** Device number of its file system; major 0 if it has no device. */
  readonly device: DeviceNumber;
  /** A current or former name. */
  readonly path: string;
}

/** Where a search for devices begins or continues. */
export type DeviceOrFile = DeviceNumber | KnownFile;

/** The kernel's report on the file or device behind a loop device. */
export interface LoopBacking {
  readonly device: DeviceNumber;
  /** Of a block device behind it. */
  readonly blockDevice: DeviceNumber | undefined;
  readonly identity: string;
}

/** Sources of the search for devices; each part may be replaced in tests. */
export interface TopologyProbe {
  /** Root of sysfs. Default "/sys". */
  readonly sysfsRoot?: string;
  /** Root of procfs. Default "/proc". */
  readonly procRoot?: string;
  /** Mounts from this process's view. Default "/proc/self/mountinfo". */
  readonly mountinfoPath?: string;
  /** Stats a path. Default: stat(2). */
  readonly lookUp?: (path: string) => Promise<PathTarget>;
  /**
   * Devices and files that a device of this process lies on, which sysfs cannot know: a front and the
   * original behind it, an image and its original. Undefined for a device that another process serves.
   */
  readonly layers?: (device: DeviceNumber) => readonly DeviceOrFile[] | undefined;
  /**
   * Asks the kernel for the file behind a loop device, whatever became of its name; undefined if it does not answer.
   * Default: the name in sysfs decides.
   */
  readonly loopBacking?: (node: string, device: DeviceNumber) => Promise<LoopBacking | undefined>;
  /** Reads a part of a device. Default: read(2), which waits as long as the device takes. */
  readonly readDevice?: ReadDevice;
  /** Tables of this host's NFS exports. Default: those of the kernel and of exportfs(8). */
  readonly exportTables?: readonly string[];
}

/**
 * Reads a part of the device with this number; `node` is its name. Rejects with the error of node:fs, ENODEV if the
 * name is another device's.
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

/** @param device in stat(2)'s notation */
export function fileIdentity(device: number, inode: number): string {
  return `file:${device}:${inode}`;
}

/** @param key "major:minor" */
export function blockIdentity(key: string): string {
  return `block:${key}`;
}

/** The text of a file without its last newline; undefined if it does not exist. */
export async function readText(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").then(
    (text) => text.replace(/\n$/, ""),
    () => undefined,
  );
}

export async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch((): string[] => []);
}

/** Stats a path with stat(2). Rejects with the error of node:fs. */
export async function lookUpPath(path: string): Promise<PathTarget> {
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
