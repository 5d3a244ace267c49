/**
 * Which diff area is a member's. The area's id names its map in the state directory and its journal in the
 * persistent one (see file-names.ts), is in the header of both, in the entries of the tracker's journal that
 * concern the area, and in the records of its snapshot.
 *
 * Daemons before had area-SNAPSHOT-TRACKER as the map, with no id in it, and a journal with a uuid of its
 * own. Such an area has the journal's uuid as its id, or one that is made from the map's name: each daemon
 * that finds it gives it the same.
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
