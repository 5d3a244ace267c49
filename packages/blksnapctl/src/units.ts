/** Formats figures: sizes in powers of 1024, durations in at most two units. */
import { type ByteRange, SECTOR_SIZE_BYTES } from "@blksnap/api";

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export interface Unit {
  readonly name: string;
  readonly bytes: number;
}

export const BYTES: Unit = { name: "B", bytes: 1 };

/** A range in the kernel module's unit, sectors of 512 bytes. */
export function sectorsOf({ offset_bytes, length_bytes }: ByteRange): {
  readonly firstSector: number;
  readonly sectors: number;
} {
  return {
    firstSector: offset_bytes / SECTOR_SIZE_BYTES,
    sectors: length_bytes / SECTOR_SIZE_BYTES,
  };
}

/** "1 device", "2 devices". */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

/** The largest unit in which all these sizes are whole numbers. */
export function commonUnit(sizesBytes: readonly number[]): Unit {
  const units = UNITS.map((name, index) => ({ name, bytes: 1024 ** (index + 1) }));
  const fits = ({ bytes }: Unit) => sizesBytes.every((size) => size % bytes === 0);
  return sizesBytes.length === 0 ? BYTES : (units.findLast(fits) ?? BYTES);
}

/** "64.0 MiB"; with `exact`, "67108864". */
export function formatBytes(bytes: number, exact: boolean): string {
  if (exact) return String(bytes);
  let value = bytes;
  let unit = "B";
  for (const next of UNITS) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return unit === "B" ? `${value} B` : `${value.toFixed(1)} ${unit}`;
}

/** "3 d 4 h", "12 min 5 s", "0 s". */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(whole / 86_400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value} ${unit}`)
    .join(" ");
}

/** "125 us", "1.3 ms", "2.0 s". */
export function formatMicroseconds(us: number): string {
  if (us < 1000) return `${us} us`;
  return us < 1_000_000 ? `${(us / 1000).toFixed(1)} ms` : `${(us / 1_000_000).toFixed(1)} s`;
}
