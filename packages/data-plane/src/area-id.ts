/** How diff areas are named. */

/** A UUID: of one diff area, and of no other at any time. */
export type AreaId = string;

/** As it is in maps and journals. */
export function areaIdBytes(id: AreaId): Uint8Array {
  return Uint8Array.from(Buffer.from(id.replaceAll("-", ""), "hex"));
}
