/** Pictures made of characters: where a device changed, how full a store is. */
import type { Environment } from "./verb.js";

export interface Glyphs {
  /** From nothing to full, five steps. */
  readonly shades: string;
  readonly full: string;
  readonly empty: string;
}

const UNICODE: Glyphs = { shades: " ░▒▓█", full: "█", empty: "░" };
const ASCII: Glyphs = { shades: " .:*#", full: "#", empty: "-" };

/** Block characters if the locale says that the terminal supports them. */
export function glyphsFor(environment: Environment): Glyphs {
  const locale = environment.LC_ALL || environment.LC_CTYPE || environment.LANG || "";
  return /utf-?8/i.test(locale) ? UNICODE : ASCII;
}

interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** One character for each equal part of a device, the darker the more of it is in `extents`. */
export function heatMap(
  extents: readonly Extent[],
  size: number,
  width: number,
  { shades }: Glyphs,
): string {
  const covered = new Float64Array(width);
  const part = size / width;
  for (const { offset, length } of extents) {
    const end = Math.min(size, offset + length);
    for (let cell = Math.floor(offset / part); cell < width && cell * part < end; cell++) {
      const from = Math.max(offset, cell * part);
      covered[cell]! += Math.max(0, Math.min(end, (cell + 1) * part) - from);
    }
  }
  const darkest = shades.length - 1;
  return Array.from(covered, (bytes) => {
    const shade = Math.ceil(Math.min(1, bytes / part) * darkest);
    return shades[shade];
  }).join("");
}

/** A bar of `width` characters, filled up to `fraction`. */
export function fillBar(fraction: number, width: number, { full, empty }: Glyphs): string {
  const filled = Math.round(Math.min(1, Math.max(0, fraction)) * width);
  return full.repeat(filled) + empty.repeat(width - filled);
}
