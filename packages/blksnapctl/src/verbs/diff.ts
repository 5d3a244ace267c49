/** diff: what changed on a device since an earlier snapshot. */
import type { DiffRange } from "@blksnap/api";
import { glyphsFor, heatMap } from "../pictures.js";
import { formatTable } from "../table.js";
import { BYTES, commonUnit, formatBytes, sectorsOf } from "../units.js";
import { parseGeneration, parseNumber, parsePath } from "../values.js";
import type { Context, Given } from "../verb.js";

const SINCE_MAX = 254;
const MAP_WIDTH_MAX = 100;
const MAP_WIDTH_DEFAULT = 64;

export async function diff(context: Context, given: Given): Promise<void> {
  const { client, json, print, printJson, bold } = context;
  const device = parsePath(given.need("device"), "device");
  const since = parseNumber(given.need("since"), "since", SINCE_MAX);
  const generation = given.one("generation");
  const found = await client.diff(
    device,
    since,
    generation === undefined ? undefined : parseGeneration(generation),
  );
  if (json) return printJson(found);
  if (given.has("raw")) {
    const lines = found.ranges.map(sectorsOf);
    return print(lines.map(({ firstSector, sectors }) => `${firstSector}:${sectors}\n`).join(""));
  }
  const exact = given.has("bytes");
  const share = found.capacity_bytes === 0 ? 0 : found.changed_bytes / found.capacity_bytes;
  print(
    `${bold(found.device)}  ${formatBytes(found.changed_bytes, exact)} of ` +
      `${formatBytes(found.capacity_bytes, exact)} changed (${(share * 100).toFixed(1)} %) ` +
      `since number ${found.since}, up to ${found.changes_number}\n`,
  );
  if (given.has("map") || context.columns !== undefined) {
    const width = Math.min(MAP_WIDTH_MAX, (context.columns ?? MAP_WIDTH_DEFAULT + 2) - 2);
    const extents = found.ranges.map((range) => ({
      offset: range.offset_bytes,
      length: range.length_bytes,
    }));
    const glyphs = glyphsFor(context.environment);
    print(`[${heatMap(extents, found.capacity_bytes, Math.max(1, width), glyphs)}]\n`);
  }
  if (found.ranges.length > 0) print(rangeTable(found.ranges, exact));
}

function rangeTable(ranges: readonly DiffRange[], exact: boolean): string {
  const figures = ranges.flatMap((range) => [range.offset_bytes, range.length_bytes]);
  const unit = exact ? BYTES : commonUnit(figures);
  const inUnit = (bytes: number) => String(bytes / unit.bytes);
  return formatTable(ranges, [
    {
      title: `OFFSET ${unit.name}`,
      align: "right",
      value: (range) => inUnit(range.offset_bytes),
    },
    { title: `LENGTH ${unit.name}`, align: "right", value: (range) => inUnit(range.length_bytes) },
    { title: "KIND", value: (range) => range.kind },
  ]);
}
