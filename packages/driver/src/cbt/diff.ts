import type { DiffResponse } from "@blksnap/api";
import type { CbtMap } from "@blksnap/engine";
import { uuidText } from "../status.js";

type Diff = Omit<DiffResponse, "device" | "front" | "since">;

const SECTOR_BYTES = 512;

/**
 * What changed after snapshot number `since` up to the last taken one, as sorted ranges that do not
 * touch each other, cut at the device's end.
 */
export function diffRanges(cbt: CbtMap, since: number): Diff {
  const info = cbt.info();
  const map = new Uint8Array(info.blockCount);
  cbt.readFrozen(map, 0, info.blockCount);
  const ranges: Diff["ranges"] = [];
  let changedBlocks = 0;
  let changedBytes = 0;
  for (let block = 0; block < map.length; ) {
    if (map[block] <= since) {
      block++;
      continue;
    }
    const first = block;
    while (block < map.length && map[block] > since) block++;
    const offsetBytes = first * info.blockBytes;
    const endBytes = Math.min(block * info.blockBytes, info.capacityBytes);
    changedBlocks += block - first;
    changedBytes += endBytes - offsetBytes;
    ranges.push({
      offset_sectors: offsetBytes / SECTOR_BYTES,
      count_sectors: (endBytes - offsetBytes) / SECTOR_BYTES,
      kind: "changed",
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
