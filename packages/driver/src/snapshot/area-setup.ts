/** How a reactor is to use the storage of a snapshot for one of its devices. */
import type { OverflowPolicy } from "@blksnap/api";
import { CHUNK_SHIFT_DEFAULT } from "@blksnap/engine";
import type { MapFileRef, SleepingArea } from "../reactor/messages.js";
import { overflowSetup } from "./overflow.js";

export const SLOT_BYTES_DEFAULT: number = 2 ** CHUNK_SHIFT_DEFAULT;
/** A device keeps at most this many unused slots before it asks for more, and asks for as many. */
const LOW_WATER_SLOTS_MAX = 32;
/** All devices together keep at most this part of the limit unused. */
const HOARD_DIVISOR = 16;

/** Areas are numbered through all snapshots of a process. */
let nextAreaId = 1;

interface StorageShare {
  readonly limitBytes: number;
  readonly slotBytes: number;
  readonly onOverflow: OverflowPolicy;
}

/** A new area of one of so many members; its stores need not be open. */
export function sleepingArea(
  map: MapFileRef,
  memberCount: number,
  { limitBytes, slotBytes, onOverflow }: StorageShare,
): SleepingArea {
  const share = Math.floor(limitBytes / slotBytes / (HOARD_DIVISOR * memberCount));
  const lowWaterSlots = Math.max(1, Math.min(LOW_WATER_SLOTS_MAX, share));
  return {
    id: nextAreaId++,
    map: { fd: map.fd, lengthBytes: map.lengthBytes },
    lowWaterSlots,
    wantedSlots: lowWaterSlots * 2,
    slotBytes,
    overflow: overflowSetup(onOverflow),
  };
}
