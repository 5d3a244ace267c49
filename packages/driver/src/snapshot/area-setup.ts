/** How a reactor uses the storage of a snapshot for one of its devices. */
import type { OverflowPolicy } from "@blksnap/api";
import type { AreaId, MapFileRef, SleepingArea } from "@blksnap/data-plane";
import { overflowSetup } from "./overflow.js";
import { waterMarks } from "./water-marks.js";

/**
 * Size of slots of snapshots whose record does not have it. It is a fact about existing stores, so it stays the same
 * when the default size of chunks changes.
 */
export const LEGACY_SLOT_BYTES: number = 256 * 1024;

interface StorageShare {
  readonly limitBytes: number;
  readonly slotBytes: number;
  readonly onOverflow: OverflowPolicy;
  readonly stores: readonly unknown[];
}

/** The area of one of `memberCount` members; its stores need not be open. */
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
