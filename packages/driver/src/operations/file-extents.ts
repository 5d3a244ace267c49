/** Where a file's bytes lie on its device, through FIEMAP. */
import { constants } from "node:fs";
import type { ByteRange } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { errnoName as nameOfErrno } from "@blksnap/errors";
import { keyOfNumber } from "@blksnap/linux-block";
import { extentsInHelper, type FileExtent, type FileExtents } from "@blksnap/uring";
import type { Tracker } from "../tracker/tracker.js";

const SECTOR_BYTES = 512n;
/** Flags of an extent, `include/uapi/linux/fiemap.h`. */
const Extent = { UNKNOWN: 2, DELALLOC: 4, NOT_ALIGNED: 0x100 } as const;

export interface MarkedFile {
  readonly tracker: Tracker;
  /** "major:minor" of the device that the file lies on. */
  readonly deviceNumber: string;
  readonly ranges: readonly ByteRange[];
}

/** @throws ControlError FILE_NOT_FOUND, FILE_NOT_MAPPABLE, FILE_NOT_ALIGNED, NOT_ATTACHED */
export async function markedFile(file: string, trackers: readonly Tracker[]): Promise<MarkedFile> {
  const { device, mode, status, extents } = await mapped(file);
  if ((mode & constants.S_IFMT) !== constants.S_IFREG) {
    throw new ControlError("FILE_NOT_MAPPABLE", `${file} is not a regular file`);
  }
  const deviceNumber = keyOfNumber(device);
  const tracker = trackers.find(
    (one) => one.front.deviceNumber === deviceNumber || one.deviceNumber === deviceNumber,
  );
  if (tracker === undefined) {
    throw new ControlError("NOT_ATTACHED", `${file} lies on device ${deviceNumber}, not tracked`);
  }
  if (status < 0) {
    const errnoName = nameOfErrno(status);
    throw new ControlError("FILE_NOT_MAPPABLE", `cannot map ${file}: ${errnoName}`, { errnoName });
  }
  return { tracker, deviceNumber, ranges: extents.map((extent) => rangeOf(extent, file)) };
}

/** In a helper: looking up and syncing the file wait for its front, which may wait for this process. */
async function mapped(file: string): Promise<FileExtents> {
  const answer = await extentsInHelper(file);
  if (typeof answer !== "number") return answer;
  throw new ControlError("FILE_NOT_FOUND", `cannot open ${file}: ${nameOfErrno(answer)}`);
}

function rangeOf({ physicalBytes, lengthBytes, flags }: FileExtent, file: string): ByteRange {
  if ((flags & (Extent.UNKNOWN | Extent.DELALLOC)) !== 0) {
    throw new ControlError("FILE_NOT_MAPPABLE", `an extent of ${file} has no place on the device`);
  }
  const aligned = physicalBytes % SECTOR_BYTES === 0n && lengthBytes % SECTOR_BYTES === 0n;
  if (!aligned || (flags & Extent.NOT_ALIGNED) !== 0) {
    throw new ControlError("FILE_NOT_ALIGNED", `an extent of ${file} is not cut at sectors`);
  }
  return { offset_bytes: Number(physicalBytes), length_bytes: Number(lengthBytes) };
}
