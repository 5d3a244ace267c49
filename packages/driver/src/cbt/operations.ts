/** What the control API does with a CBT map. */
import type { DiffResponse, SectorRange } from "@blksnap/api";
import { type CbtInfo, type CbtMap, EngineError } from "@blksnap/engine";
import { ControlError } from "../control/control-error.js";
import { uuidText } from "../uuid.js";

type Changes = Omit<DiffResponse, "device" | "front" | "since">;

const SECTOR_BYTES = 512;
const READ_ATTEMPTS_MAX = 100;

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

interface WholeMap {
  readonly info: CbtInfo;
  readonly map: Uint8Array;
  readonly discarded: Uint8Array;
}

/**
 * The frozen map with what belongs to it. Its owner may switch, or begin a new generation, between the
 * two: an old id beside the new, empty map would hide all changes.
 */
function readWhole(cbt: CbtMap): WholeMap {
  const map = new Uint8Array(cbt.blockCount);
  const discarded = new Uint8Array(cbt.blockCount);
  for (let attempt = 0; attempt < READ_ATTEMPTS_MAX; attempt++) {
    const info = cbt.info();
    cbt.readFrozen(map, 0, cbt.blockCount, discarded);
    const after = cbt.info();
    const isSame =
      after.changesNumber === info.changesNumber &&
      after.generation.every((byte, index) => byte === info.generation[index]);
    if (isSame) return { info, map, discarded };
  }
  throw new EngineError(
    "CBT_BUSY",
    "snapshots are taken faster than the CBT map is read: try again",
  );
}

/**
 * What changed after snapshot number `since` up to the last taken one, as sorted ranges, cut at the
 * device's end; those that touch each other differ in kind. @throws ControlError CBT_NUMBER_UNKNOWN
 */
export function changesSince(cbt: CbtMap, since: number, device: string): Changes {
  const { info, map, discarded } = readWhole(cbt);
  if (since > info.changesNumber) {
    throw new ControlError(
      "CBT_NUMBER_UNKNOWN",
      `${device} has no snapshot number ${since}; the last is ${info.changesNumber}`,
    );
  }
  const ranges: Changes["ranges"] = [];
  let changedBlocks = 0;
  let changedBytes = 0;
  let block = 0;
  while (block < map.length) {
    const first = block++;
    if (map[first] <= since) continue;
    const isSame = (other: number): boolean =>
      map[other] > since && discarded[other] === discarded[first];
    while (block < map.length && isSame(block)) block++;
    const offsetBytes = first * info.blockBytes;
    const endBytes = Math.min(block * info.blockBytes, info.capacityBytes);
    changedBlocks += block - first;
    changedBytes += endBytes - offsetBytes;
    ranges.push({
      offset_sectors: offsetBytes / SECTOR_BYTES,
      count_sectors: (endBytes - offsetBytes) / SECTOR_BYTES,
      kind: discarded[first] === 1 ? "discarded" : "changed",
    });
  }
  return {
    generation_id: uuidText(info.generation),
    changes_number: info.changesNumber,
    block_size: info.blockBytes,
    device_capacity: info.capacityBytes,
    changed_blocks: changedBlocks,
    changed_bytes: changedBytes,
    ranges,
  };
}
