import { SLOT_INDEX_BITS } from "@blksnap/diff-storage";
import { DiffArea, type DiffAreaMap } from "@blksnap/engine";
import type { AreaSetup } from "./messages.js";

/** A diff area, with slots to begin with. */
export function makeDiffArea(map: DiffAreaMap, setup: AreaSetup): DiffArea {
  const { lowWaterSlots, wantedSlots, extents, overflow, storeFds } = setup;
  const area = new DiffArea(map, {
    lowWaterSlots,
    wantedSlots,
    overflow: overflow.policy,
    blockedTicksMax: overflow.ticksMax,
    storeShift: SLOT_INDEX_BITS,
    storeCount: storeFds.length,
  });
  for (let i = 0; i < extents.length; i += 2) area.grantSlots(extents[i], extents[i + 1]);
  return area;
}
