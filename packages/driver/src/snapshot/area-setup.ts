/** How a reactor is to use the storage of a snapshot for one of its devices. */
import type { OverflowPolicy } from "@blksnap/api";
import type { MapFileRef, SleepingArea } from "@blksnap/data-plane";
import { CHUNK_SHIFT_DEFAULT } from "@blksnap/engine";
import { overflowSetup } from "./overflow.js";
import { waterMarks } from "./water-marks.js";

export const SLOT_BYTES_DEFAULT: number = 2 ** CHUNK_SHIFT_DEFAULT;

/** Areas are numbered through all snapshots of a process. */
let nextAreaId = 1;

interface StorageShare {
  readonly limitBytes: number;
  readonly slotBytes: number;
  readonly onOverflow: OverflowPolicy;
  readonly stores: readonly unknown[];
}

/** A new area of one of so many members; its stores need not be open. */
export function sleepingArea(
  map: MapFileRef,
  memberCount: number,
  { limitBytes, slotBytes, onOverflow, stores }: StorageShare,
): SleepingArea {
  return {
    id: nextAreaId++,
    map: { fd: map.fd, lengthBytes: map.lengthBytes },
    storeCount: stores.length,
    ...waterMarks(limitBytes / slotBytes, memberCount),
    slotBytes,
    overflow: overflowSetup(onOverflow),
  };
}
