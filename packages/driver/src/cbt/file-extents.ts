/**
 * Where a file's bytes lie on its device, through FIEMAP.
 *
 * ```
 *   struct fiemap, 32 bytes                    struct fiemap_extent, 56 bytes
 *    0 u64 start     8 u64 length               0 u64 logical    8 u64 physical
 *   16 u32 flags    20 u32 mapped extents      16 u64 length    40 u32 flags
 *   24 u32 room     28 u32 reserved
 * ```
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import type { SectorRange } from "@blksnap/api";
import { major, minor } from "@blksnap/ublk";
import { errnoName, ioctlAsync } from "@blksnap/uring";
import { ControlError } from "../control/control-error.js";
import type { Tracker } from "../tracker/tracker.js";

const FS_IOC_FIEMAP = 0xc020660b;
const HEADER_BYTES = 32;
const EXTENT_BYTES = 56;
const EXTENTS_PER_CALL = 128;
const SYNC = 1;
const SECTOR_BYTES = 512n;
/** Flags of an extent. */
const Extent = { LAST: 1, UNKNOWN: 2, DELALLOC: 4, NOT_ALIGNED: 0x100 } as const;

export interface MarkedFile {
  readonly tracker: Tracker;
  /** "major:minor" of the device that the file lies on. */
  readonly deviceNumber: string;
  readonly ranges: readonly SectorRange[];
}

/** @throws ControlError FILE_NOT_FOUND, FILE_NOT_MAPPABLE, FILE_NOT_ALIGNED, NOT_ATTACHED */
export async function markedFile(file: string, trackers: readonly Tracker[]): Promise<MarkedFile> {
  const fd = openFile(file);
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new ControlError("FILE_NOT_MAPPABLE", `${file} is no regular file`);
    const deviceNumber = `${major(stat.dev)}:${minor(stat.dev)}`;
    const tracker = trackers.find(
      (one) => one.front.deviceNumber === deviceNumber || one.deviceNumber === deviceNumber,
    );
    if (tracker === undefined) {
      throw new ControlError("NOT_ATTACHED", `${file} lies on device ${deviceNumber}, not tracked`);
    }
    return { tracker, deviceNumber, ranges: await fileRanges(fd, file) };
  } finally {
    closeSync(fd);
  }
}

function openFile(file: string): number {
  try {
    return openSync(file, constants.O_RDONLY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ControlError("FILE_NOT_FOUND", `cannot open ${file}: ${code}`, { cause: error });
  }
}

async function fileRanges(fd: number, file: string): Promise<SectorRange[]> {
  const ranges: SectorRange[] = [];
  const bytes = new Uint8Array(HEADER_BYTES + EXTENTS_PER_CALL * EXTENT_BYTES);
  const view = new DataView(bytes.buffer);
  let start = 0n;
  for (;;) {
    bytes.fill(0);
    view.setBigUint64(0, start, true);
    view.setBigUint64(8, 2n ** 63n - start, true);
    view.setUint32(16, SYNC, true);
    view.setUint32(24, EXTENTS_PER_CALL, true);
    await mapExtents(fd, file, bytes);
    const count = view.getUint32(20, true);
    for (let i = 0; i < count; i++) {
      const at = HEADER_BYTES + i * EXTENT_BYTES;
      const flags = view.getUint32(at + 40, true);
      start = view.getBigUint64(at, true) + view.getBigUint64(at + 16, true);
      ranges.push(rangeOf(view, at, flags, file));
      if ((flags & Extent.LAST) !== 0) return ranges;
    }
    if (count === 0) return ranges;
  }
}

/** Not on this thread: it syncs the file, whose writes may wait for slots that this thread grants. */
async function mapExtents(fd: number, file: string, bytes: Uint8Array): Promise<void> {
  const status = await ioctlAsync(fd, FS_IOC_FIEMAP, bytes);
  if (status >= 0) return;
  const name = errnoName(status);
  throw new ControlError("FILE_NOT_MAPPABLE", `cannot map ${file}: ${name}`, { errnoName: name });
}

function rangeOf(view: DataView, at: number, flags: number, file: string): SectorRange {
  const physical = view.getBigUint64(at + 8, true);
  const length = view.getBigUint64(at + 16, true);
  if ((flags & (Extent.UNKNOWN | Extent.DELALLOC)) !== 0) {
    throw new ControlError("FILE_NOT_MAPPABLE", `an extent of ${file} has no place on the device`);
  }
  const aligned = physical % SECTOR_BYTES === 0n && length % SECTOR_BYTES === 0n;
  if (!aligned || (flags & Extent.NOT_ALIGNED) !== 0) {
    throw new ControlError("FILE_NOT_ALIGNED", `an extent of ${file} is not cut at sectors`);
  }
  return {
    offset_sectors: Number(physical / SECTOR_BYTES),
    count_sectors: Number(length / SECTOR_BYTES),
  };
}
