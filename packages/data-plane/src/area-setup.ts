/** An area as its setup says. */
import { SLOT_INDEX_BITS } from "@blksnap/diff-storage";
import { DiffArea, type DiffAreaMap } from "@blksnap/engine";
import type { AreaIoOptions, AreaJournalSetup } from "./area-io-options.js";
import type { PlacesOfMap } from "./copy-places.js";
import type { ReactorNotice, SleepingArea, WakingArea } from "./messages.js";

export function makeArea(map: DiffAreaMap, setup: SleepingArea): DiffArea {
  const { lowWaterSlots, wantedSlots, wantedSlotsMax, overflow, storeCount } = setup;
  return new DiffArea(map, {
    lowWaterSlots,
    wantedSlots,
    wantedSlotsMax,
    overflow: overflow.policy,
    blockedTicksMax: overflow.ticksMax,
    storeShift: SLOT_INDEX_BITS,
    storeCount,
  });
}

/** What all areas of a device are opened with. */
export type AreaIoBase = Omit<AreaIoOptions, "storeFds" | "slotBytes" | "places" | "journal">;

export function areaIoOptions(
  base: AreaIoBase,
  tracker: number,
  { id: area, storeFds, slotBytes, journal: setup }: WakingArea,
  places: PlacesOfMap | undefined,
  notify: (notice: ReactorNotice) => void,
): AreaIoOptions {
  const journal: AreaJournalSetup | undefined = setup && {
    setup,
    onFault: (errno) => notify({ notice: "areaJournalFault", tracker, area, errno }),
    onLow: (need) => notify({ notice: "areaJournalLow", tracker, area, need }),
  };
  return { ...base, storeFds, slotBytes, places, journal };
}
