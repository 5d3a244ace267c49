import type { MemberRecord } from "../state/records.js";
import type { Member } from "./snapshot.js";

/** @param isKept the snapshot is persistent */
export function memberRecord(
  { tracker, map, imageNumber, journal }: Member,
  isKept: boolean,
): MemberRecord {
  return {
    tracker: tracker.id,
    map: map?.name ?? null,
    image: imageNumber ?? null,
    journal: (isKept ? journal?.uuid : undefined) ?? null,
    ...(tracker.uuid === undefined ? {} : { uuid: tracker.uuid }),
  };
}
