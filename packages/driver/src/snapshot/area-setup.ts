/** How a reactor is to use the storage of a snapshot for one of its devices. */
import type { OverflowPolicy } from "@blksnap/api";
import type { AreaId, MapFileRef, SleepingArea } from "@blksnap/data-plane";
import { CHUNK_SHIFT_DEFAULT } from "@blksnap/engine";
import { overflowSetup } from "./overflow.js";
import { waterMarks } from "./water-marks.js";

export const SLOT_BYTES_DEFAULT: number = 2 ** CHUNK_SHIFT_DEFAULT;

interface StorageShare {
  readonly limitBytes: number;
  readonly slotBytes: number;
  readonly onOverflow: OverflowPolicy;
  readonly stores: readonly unknown[];
}

/** The area of one of so many members; its stores need not be open. */
export function sleepingArea(
  { id, map }: { readonly id: AreaId; readonly map: MapFileRef },
  memberCount: number,
  { limitBytes, slotBytes, onOverflow, stores }: StorageShare,
): SleepingArea {
  return {
    id,
    map: { fd: map.fd, lengthBytes: map.lengthBytes },
    storeCount: stores.length,
    ...waterMarks(limitBytes / slotBytes, memberCount),
    slotBytes,
    overflow: overflowSetup(onOverflow),
  };
}
