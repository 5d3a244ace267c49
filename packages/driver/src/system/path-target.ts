/**
 * What paths lead to that users name, found without this process waiting for it.
 *
 * A path can lie on a file system that does not answer: of a server that is away, or above a front. The
 * main thread must not wait there, because fronts wait for it (it grants slots), nor any other thread,
 * because a server that is killed in such a wait never ends (apart.ts of @blksnap/uring).
 */
import { fstatSync, lstatSync } from "node:fs";
import { ControlError } from "@blksnap/api";
import { errnoName } from "@blksnap/errors";
import {
  type DeviceOrFile,
  deviceNumber,
  fileIdentity,
  type PathTarget,
  readSysfsDevice,
} from "@blksnap/linux-block";
import { major, minor } from "@blksnap/ublk";
import { type FileStatus, statInHelper } from "@blksnap/uring";

const ANSWER_LIMIT_MS = 5_000;
/** Nodes of devices are in memory: a look at one waits for nobody. */
const NODE = /^\/dev\/[^/]+$/;
const S_IFMT = 0o170000;
const S_IFBLK = 0o060000;

/**
 * Looks at a path, but for a device's node in another process and for at most five seconds.
 * @throws an error as node:fs has them, with `code` and `errno`: ENOENT and the like; ETIMEDOUT when
 * what the path lies on does not answer
 */
export async function pathTarget(path: string): Promise<PathTarget> {
  return nodeAt(path) ?? targetOfStatus(await answered(path));
}

/** @param number "major:minor" */
export function blockIdentity(number: string): string {
  return `block:${number}`;
}

/** What a path leads to, whatever its name. @throws ControlError DEVICE_NOT_FOUND, DEVICE_FAILED (ETIMEDOUT) */
export async function identityOf(
  path: string,
  lookAt: (path: string) => Promise<PathTarget> = pathTarget,
): Promise<string> {
  try {
    return (await lookAt(path)).identity;
  } catch (error) {
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    const options = { cause: error, errnoName: code };
    if (code === "ETIMEDOUT") {
      throw new ControlError("DEVICE_FAILED", `what ${path} lies on does not answer`, options);
    }
    throw new ControlError("DEVICE_NOT_FOUND", `${path} does not exist (${code})`, options);
  }
}

/** What is open, as identityOf() tells it of a path. */
export function identityOfOpen(fd: number): string {
  const stats = fstatSync(fd);
  return identityOfStats(stats.isBlockDevice(), stats.dev, stats.ino, stats.rdev);
}

function identityOfStats(
  isBlockDevice: boolean,
  device: number,
  inode: number,
  special: number,
): string {
  return isBlockDevice
    ? blockIdentity(`${major(special)}:${minor(special)}`)
    : fileIdentity(device, inode);
}

/** Where a search for devices begins for what an identity tells. @param path of a file, its name */
export function deviceOrFile(identity: string, path: string): DeviceOrFile {
  const [kind, one, other] = identity.split(":");
  if (kind === "block") return { major: Number(one), minor: Number(other) };
  return { identity, device: deviceNumber(Number(one)), path };
}

/** What a block device is called now; undefined for a file, and for a device that is gone. */
export async function presentName(identity: string, sysfs = "/sys"): Promise<string | undefined> {
  const place = deviceOrFile(identity, "");
  return "path" in place ? undefined : (await readSysfsDevice(sysfs, place))?.name;
}

function nodeAt(path: string): PathTarget | undefined {
  if (!NODE.test(path)) return undefined;
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (!stats?.isBlockDevice()) return undefined;
  return targetOfStatus({
    device: stats.dev,
    inode: stats.ino,
    mode: stats.mode,
    special: stats.rdev,
    realPath: path,
  });
}

function targetOfStatus({ device, inode, mode, special, realPath }: FileStatus): PathTarget {
  const isBlockDevice = (mode & S_IFMT) === S_IFBLK;
  return {
    realPath,
    device: deviceNumber(device),
    blockDevice: isBlockDevice ? deviceNumber(special) : undefined,
    identity: identityOfStats(isBlockDevice, device, inode, special),
  };
}

async function answered(path: string): Promise<FileStatus> {
  const answer = await statInHelper(path, ANSWER_LIMIT_MS);
  if (typeof answer !== "number") return answer;
  const code = errnoName(answer);
  throw Object.assign(new Error(`${code}: stat ${path}`), { code, errno: answer });
}
