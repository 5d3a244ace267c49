/** What the control API does with a CBT map. */
import type { SectorRange } from "@blksnap/api";
import type { CbtInfo, CbtMap } from "@blksnap/engine";
import { ControlError } from "../control/control-error.js";

const SECTOR_BYTES = 512;

/** A part of the frozen map. @throws ControlError CBT_RANGE */
export function readMap(cbt: CbtMap, offset: number, length: number): Uint8Array {
  if (offset + length > cbt.blockCount) {
    throw new ControlError(
      "CBT_RANGE",
      `blocks ${offset} to ${offset + length} of ${cbt.blockCount} were asked for`,
    );
  }
  const bytes = new Uint8Array(length);
  cbt.readFrozen(bytes, offset, length);
  return bytes;
}

/**
 * Offsets and lengths in bytes, in turn. With a map that lost marks, to mark more of them would only
 * feign that it can be trusted. @throws ControlError MARK_RANGE, CBT_CORRUPTED (EINVAL here)
 */
export function markedRanges(
  ranges: readonly SectorRange[],
  { capacityBytes, corrupted }: Pick<CbtInfo, "capacityBytes" | "corrupted">,
  device: string,
): number[] {
  if (corrupted) {
    throw new ControlError("CBT_CORRUPTED", `the CBT map of ${device} has lost marks`, {
      errnoName: "EINVAL",
    });
  }
  return ranges.flatMap(({ offset_sectors: offset, count_sectors: count }) => {
    if ((offset + count) * SECTOR_BYTES > capacityBytes) {
      throw new ControlError(
        "MARK_RANGE",
        `sectors ${offset} to ${offset + count} are beyond the ` +
          `${capacityBytes / SECTOR_BYTES} of ${device}`,
      );
    }
    return [offset * SECTOR_BYTES, count * SECTOR_BYTES];
  });
}
