/**
 * Which diff area a member has. The area's id names its map in the state directory and its journal in the persistent
 * directory (see file-names.ts); it is in the header of both, in the entries of the tracker's journal that concern the
 * area, and in the records of its snapshot.
 *
 * Older daemons named the map area-SNAPSHOT-TRACKER, without an id in it, and gave the journal a uuid of its own. Such
 * an area has the journal's uuid as its id, or one derived from the map's name, so that every daemon gives it the same.
 */
import { createHash } from "node:crypto";
import type { AreaId } from "@blksnap/data-plane";
import { uuidText } from "@blksnap/linux-block";
import type { MemberRecord } from "./records.js";

const UUID_BYTES = 16;

/** The area of a member on record; undefined before take. */
export function areaIdOf({
  area,
  journal,
  map,
}: Pick<MemberRecord, "area" | "journal" | "map">): AreaId | undefined {
  if (map === null) return undefined;
  return area ?? journal ?? impliedId(map);
}

/** A UUID of version 8: a custom format. */
function impliedId(mapName: string): AreaId {
  const bytes = createHash("sha256").update(mapName).digest().subarray(0, UUID_BYTES);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return uuidText(bytes);
}
