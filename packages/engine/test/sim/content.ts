/**
 * The content of a sector, as one number. Bytes are not simulated; each sector has a u32:
 *
 *     0                          zero bytes
 *     version << 10 | position   written by the request with this version, at this position
 *     0xffc00000 and above       garbage: must never be read
 *
 * The low bits are the sector's position on the device, so misplaced data is found.
 */

export const ZERO = 0;
const VERSION_MAX = 0x3fefff;
const GARBAGE = 0xffc00000;
let garbageCount = 0;

export function sectorValue(version: number, sector: number): number {
  if (version > VERSION_MAX) throw new Error("the simulation ran out of versions");
  return ((version << 10) | (sector & 1023)) >>> 0;
}

/** Each value is unique for a long time. */
export function garbage(): number {
  garbageCount = (garbageCount + 1) & 0x3fffff;
  return (GARBAGE | garbageCount) >>> 0;
}

export function describe(value: number): string {
  if (value >= GARBAGE) return `garbage#${value - GARBAGE}`;
  return value === 0 ? "zero" : `v${value >>> 10}@${value & 1023}`;
}
