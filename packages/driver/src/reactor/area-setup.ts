/** An area as its setup says. */
import { SLOT_INDEX_BITS } from "@blksnap/diff-storage";
import { DiffArea, type DiffAreaMap } from "@blksnap/engine";
import type { AreaIoOptions, AreaJournalSetup } from "./area-io.js";
import type { AreaSetup, ReactorNotice } from "./messages.js";

/** With the slots that it begins with. */
export function makeArea(map: DiffAreaMap, setup: AreaSetup): DiffArea {
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

/** What all areas of a device are opened with. */
export type AreaIoBase = Omit<AreaIoOptions, "storeFds" | "slotBytes" | "journal">;

export function areaIoOptions(
  base: AreaIoBase,
  tracker: number,
  { id: area, storeFds, slotBytes, journal: setup }: AreaSetup,
  notify: (notice: ReactorNotice) => void,
): AreaIoOptions {
  const journal: AreaJournalSetup | undefined = setup && {
    setup,
    onFault: (errno) => notify({ notice: "areaJournalFault", tracker, area, errno }),
    onLow: (need) => notify({ notice: "areaJournalLow", tracker, area, need }),
  };
  return { ...base, storeFds, slotBytes, journal };
}
