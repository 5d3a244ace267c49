/**
 * The original of a tracker on record, found by what it is: the name of attach is a label, and may be gone
 * (a volume that was renamed), or lead elsewhere (a link of udev that turned to the front).
 */
import { execFile } from "node:child_process";
import { closeSync } from "node:fs";
import { dirname } from "node:path";
import { ControlError } from "@blksnap/api";
import {
  blockIdentity,
  compareMarks,
  devicesLike,
  identityOfOpen,
  nodeOf,
  readMarks,
} from "@blksnap/linux-block";
import type { BackingFile } from "@blksnap/ublk";
import type { Logger } from "pino";
import type { TrackerRecord } from "../records/records.js";
import { identityOf } from "../system/path-target.js";
import { FIND_TIMEOUT_MS } from "../time-limits.js";
import { openFenced } from "./fence.js";
import type { Undo } from "./undo.js";

/** Where an original is. */
export interface FoundOriginal {
  readonly identity: string;
  /** To open it by. */
  readonly path: string;
  /** It was away meanwhile, and anybody may have written to it. */
  readonly wasAway: boolean;
}

/** An original that is open again. */
export interface ReopenedOriginal extends Omit<FoundOriginal, "path"> {
  /** Its path is the name of attach. */
  readonly backing: BackingFile;
}

type Wanted = Pick<TrackerRecord, "device" | "identity" | "marks">;

const BLOCK = "block:";

/**
 * Opens the original on record as soon as nobody holds it any more.
 * @throws ControlError DEVICE_NOT_FOUND; UblkError of openBackingFile
 */
export async function reopenOriginal(
  { logger }: { readonly logger: Logger },
  record: TrackerRecord,
  patienceMs: number,
  undo: Undo,
): Promise<ReopenedOriginal> {
  const { device } = record;
  const { identity, path, wasAway } = await findOriginal(record);
  const backing = { ...(await openFenced(path, patienceMs)), path: device };
  undo.push(() => closeSync(backing.fd));
  if (identityOfOpen(backing.fd) !== identity) throw notFound(`${device} is another device now`);
  if (wasAway) {
    const what = `${device} was away: a new generation begins, and its image is lost`;
    logger.warn({ device, path, before: record.identity, identity }, what);
  }
  return { backing, identity, wasAway };
}

/** @throws ControlError DEVICE_NOT_FOUND: it is gone, or there is another device in its place */
export function findOriginal(wanted: Wanted, sysfs?: string, dev?: string): Promise<FoundOriginal> {
  return wanted.identity.startsWith(BLOCK) ? findDevice(wanted, sysfs, dev) : findFile(wanted);
}

async function findDevice(wanted: Wanted, sysfs?: string, dev?: string): Promise<FoundOriginal> {
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
  // Without a node of the kernel's own there is still the name of attach.
  const path = nodeOf(at, sysfs, dev) ?? (await ifIdentity(device, blockIdentity(at)));
  if (path === undefined)
    throw notFound(`the device ${at}, attached as ${device}, has no node in /dev`);
  return { identity: blockIdentity(at), path, wasAway: at !== number || verdict === "again" };
}

async function findFile({ device, identity }: Wanted): Promise<FoundOriginal> {
  const path = (await ifIdentity(device, identity)) ?? (await renamed(device, identity));
  if (path !== undefined) return { identity, path, wasAway: false };
  const there = await identityOf(device).catch((error: ControlError) => error);
  if (typeof there !== "string") throw there;
  throw notFound(`${device} is another file now`);
}

/** Another name of the file in its folder. */
async function renamed(device: string, identity: string): Promise<string | undefined> {
  const inode = identity.split(":").at(-1) as string;
  for (const path of await namesOfInode(dirname(device), inode)) {
    const found = await ifIdentity(path, identity);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** By a process of its own, as the folder's file system may not answer; see path-target.ts. */
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

async function ifIdentity(path: string, identity: string): Promise<string | undefined> {
  return (await identityOf(path).catch(() => undefined)) === identity ? path : undefined;
}

function notFound(what: string): ControlError {
  const hint = "Users of its front wait until the device is back";
  return new ControlError("DEVICE_NOT_FOUND", what, { hint });
}
