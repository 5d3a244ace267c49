/** The control API's operations on a CBT map. */
import type { ByteRange, MarkDirtyFileResponse, MarkDirtyResponse } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import type { CbtInfo, CbtMap } from "@blksnap/engine";
import type { Registry } from "../registry.js";
import { markedFile } from "./file-extents.js";

/** A part of the frozen map. @throws ControlError CBT_RANGE */
export function readMap(cbt: CbtMap, firstBlock: number, count: number): Uint8Array {
  if (firstBlock + count > cbt.blockCount) {
    throw new ControlError(
      "CBT_RANGE",
      `blocks ${firstBlock} to ${firstBlock + count} of ${cbt.blockCount} were asked for`,
    );
  }
  const bytes = new Uint8Array(count);
  cbt.readFrozen(bytes, firstBlock, count);
  return bytes;
}

/**
 * Offsets and lengths in bytes, alternating. In a map that lost marks, further marks would only pretend that it can be
 * trusted. @throws ControlError MARK_RANGE, CBT_CORRUPTED (EINVAL here)
 */
export function markedRanges(
  ranges: readonly ByteRange[],
  { capacityBytes, corrupted }: Pick<CbtInfo, "capacityBytes" | "corrupted">,
  device: string,
): number[] {
  if (corrupted) {
    throw new ControlError("CBT_CORRUPTED", `the CBT map of ${device} has lost marks`, {
      errnoName: "EINVAL",
    });
  }
  return ranges.flatMap(({ offset_bytes: offset, length_bytes: length }) => {
    if (offset + length > capacityBytes) {
      throw new ControlError(
        "MARK_RANGE",
        `bytes ${offset} to ${offset + length} are beyond the ${capacityBytes} of ${device}`,
      );
    }
    return [offset, length];
  });
}

/** @throws ControlError NOT_ATTACHED, and as `markedRanges` */
export async function markDirty(
  registry: Registry,
  device: string,
  ranges: readonly ByteRange[],
): Promise<MarkDirtyResponse> {
  const tracker = await registry.tracker(device);
  await tracker.markDirty(markedRanges(ranges, tracker.cbt.info(), tracker.device));
  // Marks made by hand are in no journal: a new checkpoint includes them.
  if (tracker.uuid !== undefined) await tracker.rotateJournal();
  return { device: tracker.device, ranges: ranges.length };
}

/**
 * Marks where a file lies.
 * @param device on which it must lie
 * @throws ControlError FILE_NOT_MAPPABLE, and as `markDirty`
 */
export async function markDirtyFile(
  registry: Registry,
  file: string,
  device?: string,
): Promise<MarkDirtyFileResponse> {
  const { tracker, deviceNumber, ranges } = await markedFile(file, [...registry.trackers.values()]);
  if (device !== undefined && (await registry.tracker(device)) !== tracker) {
    throw new ControlError("FILE_NOT_MAPPABLE", `${file} does not lie on ${device}`);
  }
  await markDirty(registry, tracker.device, ranges);
  return { device: tracker.device, device_number: deviceNumber, ranges: [...ranges] };
}
