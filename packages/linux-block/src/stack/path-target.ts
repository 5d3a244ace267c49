/**
 * Resolves users' paths without this process waiting for them.
 *
 * A path can lie on a file system that does not answer: of a dead server, or on a device that this process serves.
 * Neither its main thread may wait there, because its devices wait for that thread, nor any other one, because a
 * server that is killed in such a wait never ends (apart.ts of @blksnap/uring).
 */
import { lstatSync, type Stats } from "node:fs";
import { errnoName, errnoNumber } from "@blksnap/errors";
import { deviceNumber, keyOfNumber, parseDevice } from "../device-number.js";
import { deviceNotFound, LinuxBlockError } from "../errors.js";
import type { FileStatus, HelperCalls } from "../helper-calls.js";
import { blockIdentity, type DeviceOrFile, fileIdentity, type PathTarget } from "./probe.js";
import { readSysfsDevice } from "./sysfs-device.js";

const ANSWER_LIMIT_MS = 5_000;
/** Nodes of devices are in memory: a stat of one never hangs. */
const NODE = /^\/dev\/[^/]+$/;
const S_IFMT = 0o170000;
const S_IFBLK = 0o060000;
const BLOCK = "block:";

/** @throws an error of node:fs, with `code` and `errno` */
export type PathLookup = (path: string) => Promise<PathTarget>;

/**
 * Stats paths, except nodes of devices, in another process and for at most five seconds: it fails with ETIMEDOUT if
 * the file system of a path does not answer.
 */
export function boundedLookup(stat: HelperCalls["stat"]): PathLookup {
  return async (path) => nodeAt(path) ?? targetOfStatus(await answered(stat, path));
}

/** The target of a path, whatever its name. @throws LinuxBlockError DEVICE_NOT_FOUND, DEVICE_FAILED (ETIMEDOUT) */
export async function identityAt(path: string, lookUp: PathLookup): Promise<string> {
  try {
    return (await lookUp(path)).identity;
  } catch (error) {
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    if (code === "ETIMEDOUT") {
      const options = { cause: error, errno: errnoNumber(code) };
      throw new LinuxBlockError("DEVICE_FAILED", `a device below ${path} does not answer`, options);
    }
    throw deviceNotFound(path, error);
  }
}

/** Like identityAt(), of numbers as in `node:fs`. */
export function identityOfStats({
  mode,
  dev,
  ino,
  rdev,
}: Pick<Stats, "mode" | "dev" | "ino" | "rdev">): string {
  return isBlock(mode) ? blockIdentity(keyOfNumber(rdev)) : fileIdentity(dev, ino);
}

function isBlock(mode: number): boolean {
  return (mode & S_IFMT) === S_IFBLK;
}

/** The start of a search for devices below an identity. @param path of a file, its name */
export function deviceOrFile(identity: string, path: string): DeviceOrFile {
  const block = identity.startsWith(BLOCK) ? parseDevice(identity.slice(BLOCK.length)) : undefined;
  return block ?? { identity, device: deviceNumber(Number(identity.split(":")[1])), path };
}

/** The current name of a block device; undefined for a file, and for a device that is gone. */
export function presentName(identity: string, sysfs = "/sys"): string | undefined {
  const place = deviceOrFile(identity, "");
  return "path" in place ? undefined : readSysfsDevice(sysfs, place)?.name;
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
  return {
    realPath,
    device: deviceNumber(device),
    blockDevice: isBlock(mode) ? deviceNumber(special) : undefined,
    identity: identityOfStats({ mode, dev: device, ino: inode, rdev: special }),
  };
}

async function answered(stat: HelperCalls["stat"], path: string): Promise<FileStatus> {
  const answer = await stat(path, ANSWER_LIMIT_MS);
  if (typeof answer !== "number") return answer;
  const code = errnoName(answer);
  throw Object.assign(new Error(`${code}: stat ${path}`), { code, errno: answer });
}
