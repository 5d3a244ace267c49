import type { MemberRecord } from "../records/records.js";
import type { Member } from "./member.js";

/** @param isKept the snapshot is persistent */
export function memberRecord(
  { tracker, area, imageNumber, journal }: Member,
  isKept: boolean,
): MemberRecord {
  return {
    tracker: tracker.id,
    area: area?.id ?? null,
    map: area?.map.name ?? null,
    image: imageNumber ?? null,
    journal: (isKept ? journal?.area : undefined) ?? null,
    ...(tracker.uuid === undefined ? {} : { uuid: tracker.uuid }),
  };
}
