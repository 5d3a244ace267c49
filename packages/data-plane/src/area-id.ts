/** How diff areas are named. */

/** A UUID: of one diff area, and of no other at any time. */
export type AreaId = string;

/** As it is in maps and journals. */
export function areaIdBytes(id: AreaId): Uint8Array {
  return Uint8Array.from(Buffer.from(id.replaceAll("-", ""), "hex"));
}

export function areaIdOfBytes(bytes: Uint8Array): AreaId {
  const hex = Buffer.from(bytes).toString("hex");
  const ends = [0, 8, 12, 16, 20, 32];
  return ends
    .slice(1)
    .map((end, i) => hex.slice(ends[i], end))
    .join("-");
}
