/** An area as its setup says. */
import { DiffArea, type DiffAreaMap } from "@blksnap/engine";
import type { AreaJournalSetup } from "./area-io.js";
import type { ReactorNotice, SleepingArea } from "./messages.js";

export function makeArea(map: DiffAreaMap, setup: SleepingArea): DiffArea {
  const { lowWaterSlots, wantedSlots } = setup;
  const { policy: overflow, ticksMax: blockedTicksMax } = setup.overflow;
  return new DiffArea(map, { lowWaterSlots, wantedSlots, overflow, blockedTicksMax });
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
