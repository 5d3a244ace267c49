/** Opens the original of a recorded tracker again, wherever it is now. */
import { readlinkSync } from "node:fs";
import { ControlError } from "@blksnap/api";
import {
  blockIdentity,
  type DeviceOrFile,
  deviceOrFile,
  type FoundDevice,
  fileIdentity,
  findAgain,
  keyOfNumber,
  LinuxBlockError,
  type WantedDevice,
} from "@blksnap/linux-block";
import { type BackingFile, closeBackingFile } from "@blksnap/ublk";
import type { Logger } from "pino";
import type { TrackerRecord } from "../records/records.js";
import { pathTarget } from "../system/path-target.js";
import { openFenced } from "./fence.js";
import type { Undo } from "./undo.js";

/** A reopened original. */
export interface ReopenedOriginal extends Omit<FoundDevice, "path"> {
  /** Its path is the name at attach. */
  readonly backing: BackingFile;
}

/**
 * Opens the recorded original as soon as no earlier request holds it.
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
  undo.push(() => closeBackingFile(backing));
  if (identityOfBacking(backing) !== identity) throw notFound(`${device} is another device now`);
  if (wasAway) {
    const what = `${device} was missing: a new generation begins, and its image is lost`;
    logger.warn({ device, path, before: record.identity, identity }, what);
  }
  return { backing, identity, wasAway };
}

export function identityOfBacking({
  kind,
  deviceNumber,
  inode,
}: Pick<BackingFile, "kind" | "deviceNumber" | "inode">): string {
  if (kind === "block") return blockIdentity(keyOfNumber(deviceNumber));
  return fileIdentity(deviceNumber, inode);
}

/** Where its data is, whatever its name. */
export function placeOf(
  identity: string,
  { kind, path, fd }: Pick<BackingFile, "kind" | "path" | "fd">,
): DeviceOrFile {
  return deviceOrFile(identity, kind === "block" ? path : readlinkSync(`/proc/self/fd/${fd}`));
}

/** @throws ControlError DEVICE_NOT_FOUND: it is gone, or replaced by another device */
export async function findOriginal(wanted: WantedDevice): Promise<FoundDevice> {
  try {
    return await findAgain(wanted, { lookUp: pathTarget });
  } catch (error) {
    const isGone = error instanceof LinuxBlockError && error.code === "DEVICE_NOT_FOUND";
    throw isGone ? notFound(error.message, error) : error;
  }
}

function notFound(what: string, cause?: LinuxBlockError): ControlError {
  const hint = "Users of its front wait until the device is back";
  const errnoName = cause?.errnoName;
  return new ControlError("DEVICE_NOT_FOUND", what, {
    hint,
    cause,
    ...(errnoName === undefined ? {} : { errnoName }),
  });
}
