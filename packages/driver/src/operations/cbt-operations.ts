/** The control API's operations on a CBT map. */
import type { ByteRange } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import type { CbtInfo, CbtMap } from "@blksnap/engine";

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
