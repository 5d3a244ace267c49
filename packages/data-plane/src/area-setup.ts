/** Makes an area from its setup. */
import { SLOT_INDEX_BITS } from "@blksnap/diff-storage";
import { DiffArea, type DiffAreaMap } from "@blksnap/engine";
import type { Reactor } from "@blksnap/uring";
import type { AreaId } from "./area-id.js";
import { AreaIo } from "./area-io.js";
import type { AreaIoOptions, AreaJournalSetup } from "./area-io-options.js";
import type { AreaMapFile } from "./area-map-file.js";
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

/** Options common to the areas of a device. */
export type AreaIoBase = Omit<AreaIoOptions, "storeFds" | "slotBytes" | "places" | "journal">;

/** What an area's I/O needs of its device. */
interface IoHost {
  readonly tracker: number;
  readonly reactor: Reactor;
  readonly ioBase: AreaIoBase;
  readonly notify: (notice: ReactorNotice) => void;
}

export function openIo(
  { ioBase, tracker, reactor, notify }: IoHost,
  { id: area, storeFds, syncFds = storeFds, slotBytes, journal: setup }: WakingArea,
  { places }: AreaMapFile,
): AreaIo {
  const journal: AreaJournalSetup | undefined = setup && {
    setup,
    syncFds,
    onFault: (errno) => notify({ notice: "areaJournalFault", tracker, area, errno }),
    onLow: (need) => notify({ notice: "areaJournalLow", tracker, area, need }),
  };
  const options = { ...ioBase, storeFds, slotBytes, places, journal };
  return reactor.attempt(() => new AreaIo(options));
}

/** Everything in flight when the area was closed has been answered. */
export function reportIdle(
  { tracker, notify }: Pick<IoHost, "tracker" | "notify">,
  area: AreaId,
): void {
  notify({ notice: "areaIdle", tracker, area });
}
