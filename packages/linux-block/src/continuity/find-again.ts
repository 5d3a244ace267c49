/**
 * Finds a device or file of this boot by its identity: its old name is only a label, and may be gone (a renamed
 * volume), or lead elsewhere (a udev link that means another device now).
 */
import { execFile } from "node:child_process";
import { dirname } from "node:path";
import { LinuxBlockError } from "../errors.js";
import { identityAt, type PathLookup } from "../stack/path-target.js";
import { blockIdentity } from "../stack/probe.js";
import { compareMarks, type DeviceMarks, devicesLike, nodeOf, readMarks } from "./device-marks.js";

/** Its record. */
export interface WantedDevice {
  /** Its old name. */
  readonly device: string;
  readonly identity: string;
  readonly marks?: DeviceMarks;
}

/** Its present path. */
export interface FoundDevice {
  readonly identity: string;
  /** The path to open it by. */
  readonly path: string;
  /** It was away meanwhile, and any program may have written to it. */
  readonly wasAway: boolean;
}

export interface FindAgainOptions {
  readonly lookUp: PathLookup;
  readonly sysfs?: string;
  readonly dev?: string;
}

/** Bounds the search of a folder for a file under another name, because a caller waits for it. */
const FIND_TIMEOUT_MS = 5_000;
const BLOCK = "block:";

/** @throws LinuxBlockError DEVICE_NOT_FOUND: it is gone, or another device has replaced it; DEVICE_FAILED */
export function findAgain(wanted: WantedDevice, options: FindAgainOptions): Promise<FoundDevice> {
  return wanted.identity.startsWith(BLOCK)
    ? findDevice(wanted, options)
    : findFile(wanted, options.lookUp);
}

async function findDevice(
  wanted: WantedDevice,
  { lookUp, sysfs, dev }: FindAgainOptions,
): Promise<FoundDevice> {
  const { device, identity, marks } = wanted;
  const number = identity.slice(BLOCK.length);
  const now = readMarks(number, sysfs);
  const verdict = now === undefined || marks === undefined ? undefined : compareMarks(marks, now);
  const isThere = now !== undefined && verdict !== "other";
  const found = isThere || marks === undefined ? [number] : devicesLike(marks, sysfs);
  const [at] = found;
  if (at === undefined || (now === undefined && at === number)) {
    const said = `${device} (${number})`;
    const what = verdict === "other" ? `${said} is another device now` : `${said} is gone`;
    throw notFound(what);
  }
  if (found.length > 1) throw notFound(`${device} is one of ${found.join(", ")}`);
  // Without a node with the kernel's name, its old name remains.
  const path = nodeOf(at, sysfs, dev) ?? (await ifIdentity(device, blockIdentity(at), lookUp));
  if (path === undefined)
    throw notFound(`the device ${at}, known as ${device}, has no node in /dev`);
  return { identity: blockIdentity(at), path, wasAway: at !== number || verdict === "again" };
}

async function findFile(
  { device, identity }: WantedDevice,
  lookUp: PathLookup,
): Promise<FoundDevice> {
  const path =
    (await ifIdentity(device, identity, lookUp)) ?? (await renamed(device, identity, lookUp));
  if (path !== undefined) return { identity, path, wasAway: false };
  const there = await identityAt(device, lookUp).catch((error: LinuxBlockError) => error);
  if (typeof there !== "string") throw there;
  throw notFound(`${device} is another file now`);
}

/** Another name of the file in its folder. */
async function renamed(
  device: string,
  identity: string,
  lookUp: PathLookup,
): Promise<string | undefined> {
  const inode = identity.split(":").at(-1) as string;
  for (const path of await namesOfInode(dirname(device), inode)) {
    const found = await ifIdentity(path, identity, lookUp);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** In a process of its own, because the folder's file system may hang; see path-target.ts. */
function namesOfInode(folder: string, inode: string): Promise<string[]> {
  const words = [folder, "-xdev", "-maxdepth", "1", "-type", "f", "-inum", inode, "-print0"];
  return new Promise((resolve) => {
    const child = execFile("find", words, (error, stdout) => {
      clearTimeout(timer);
      resolve(error === null ? stdout.split("\0").filter((name) => name !== "") : []);
    });
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      child.unref();
      resolve([]);
    }, FIND_TIMEOUT_MS);
  });
}

async function ifIdentity(
  path: string,
  identity: string,
  lookUp: PathLookup,
): Promise<string | undefined> {
  return (await identityAt(path, lookUp).catch(() => undefined)) === identity ? path : undefined;
}

function notFound(what: string): LinuxBlockError {
  return new LinuxBlockError("DEVICE_NOT_FOUND", what);
}
