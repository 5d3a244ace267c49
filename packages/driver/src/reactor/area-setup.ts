/** An area as its setup says. */
import { DiffArea, type DiffAreaMap } from "@blksnap/engine";
import type { AreaJournalSetup } from "./area-io.js";
import type { AreaSetup, ReactorNotice } from "./messages.js";

/** With the slots that it begins with. */
export function makeArea(map: DiffAreaMap, setup: AreaSetup): DiffArea {
  const { lowWaterSlots, wantedSlots, extents } = setup;
  const { policy: overflow, ticksMax: blockedTicksMax } = setup.overflow;
  const area = new DiffArea(map, { lowWaterSlots, wantedSlots, overflow, blockedTicksMax });
  for (let i = 0; i < extents.length; i += 2) area.grantSlots(extents[i], extents[i + 1]);
  return area;
}

/** What the journal of an area tells the main thread. */
export function areaJournalNotices(
  tracker: number,
  area: number,
  notify: (notice: ReactorNotice) => void,
): Pick<AreaJournalSetup, "onFault" | "onLow"> {
  return {
    onFault: (errno) => notify({ notice: "areaJournalFault", tracker, area, errno }),
    onLow: (need) => notify({ notice: "areaJournalLow", tracker, area, need }),
  };
}
