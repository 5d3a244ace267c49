/** diff: what changed on a device since an earlier snapshot. */
import type { DiffHead, DiffRange } from "@blksnap/api";
import type { ChangedFiles } from "../changed-files.js";
import { whyFreed } from "../freed-image.js";
import { isNbdAddress } from "../nbd-address.js";
import { glyphsFor, heatMap } from "../pictures.js";
import { formatTable } from "../table.js";
import { BYTES, commonUnit, formatBytes, sectorsOf } from "../units.js";
import { usageError } from "../usage-error.js";
import { parseFormat, parseGeneration, parseNumber, parsePath } from "../values.js";
import type { Context, Given } from "../verb.js";

const SINCE_MAX = 254;
const MAP_WIDTH_MAX = 100;
const MAP_WIDTH_DEFAULT = 64;
/** Lines per write. */
const BATCH_LINES = 4096;
/** How long to wait for a daemon that is being upgraded. */
const RESUME_MS = 60_000;

const FORMATS = ["ranges", "raw", "nbd", "json"] as const;
type Format = (typeof FORMATS)[number];

interface Changes extends DiffHead {
  readonly ranges: readonly DiffRange[];
}

function formatOf(given: Given, json: boolean): Format {
  const format = given.one("format");
  const short = given.has("raw") ? "raw" : json ? "json" : undefined;
  if (format === undefined) return short ?? "ranges";
  const chosen = parseFormat(format, FORMATS);
  if (short !== undefined && short !== chosen) {
    throw usageError(`--format ${chosen} and --${short} exclude each other`);
  }
  return chosen;
}

export async function diff(context: Context, given: Given): Promise<void> {
  const { client, json, print, printJson } = context;
  const device = parsePath(given.need("device"), "device");
  const since = parseNumber(given.need("since"), "since", SINCE_MAX);
  const generation = given.one("generation");
  const format = formatOf(given, json);
  const named = given.has("files");
  if (named && (format === "raw" || format === "nbd")) {
    throw usageError(`--files has no ${format} format`);
  }
  let head: DiffHead | undefined;
  const extents = client.changedExtents(device, since, {
    generation: generation === undefined ? undefined : parseGeneration(generation),
    resumeMs: RESUME_MS,
    onHead: (told) => {
      head = told;
    },
  });
  if (format === "raw") return printRaw(context, extents);
  if (format === "nbd") return printNbd(context, extents, () => head!.capacity_bytes);
  const ranges: DiffRange[] = [];
  for await (const extent of extents) ranges.push(extent);
  // The head comes before the first extent, even if there is none.
  const found: Changes = { ...head!, ranges };
  const files = named ? await filesOf(context, device, ranges) : undefined;
  if (format === "json") return printJson({ ...found, ...files });
  printSummary(context, given, found);
  if (files !== undefined) print(fileTable(files, given.has("bytes")));
  else if (ranges.length > 0) print(rangeTable(ranges, given.has("bytes")));
}

async function printRaw({ print }: Context, extents: AsyncIterable<DiffRange>): Promise<void> {
  let lines: string[] = [];
  for await (const extent of extents) {
    const { firstSector, sectors } = sectorsOf(extent);
    lines.push(`${firstSector}:${sectors}\n`);
    if (lines.length < BATCH_LINES) continue;
    print(lines.join(""));
    lines = [];
  }
  print(lines.join(""));
}

/** In the format of `nbdinfo --map=qemu:dirty-bitmap:since-N` for the image: the whole device, changed or not. */
async function printNbd(
  { print }: Context,
  extents: AsyncIterable<DiffRange>,
  capacityBytes: () => number,
): Promise<void> {
  let lines: string[] = [];
  const put = (from: number, end: number, type: 0 | 1): void => {
    if (end <= from) return;
    const figures = `${String(from).padStart(10)}  ${String(end - from).padStart(10)}`;
    lines.push(`${figures}    ${type}  ${type === 1 ? "dirty" : "clean"}\n`);
    if (lines.length < BATCH_LINES) return;
    print(lines.join(""));
    lines = [];
  };
  let [from, end] = [0, 0];
  for await (const { offset_bytes, length_bytes } of extents) {
    if (offset_bytes > end) {
      put(from, end, 1);
      put(end, offset_bytes, 0);
      from = offset_bytes;
    }
    end = offset_bytes + length_bytes;
  }
  put(from, end, 1);
  put(end, capacityBytes(), 0);
  print(lines.join(""));
}

async function filesOf(
  { client }: Context,
  device: string,
  ranges: readonly DiffRange[],
): Promise<ChangedFiles> {
  const { image } = await client.snapshotInfo(device);
  if (image === null) {
    const hint = "Take a snapshot of the device first: files are looked for in its image";
    throw usageError(`--files: ${device} has no image`, "FILES_NOT_NAMED", hint);
  }
  if (isNbdAddress(image)) {
    const hint = "Files are named where images are block devices, with ublk";
    throw usageError(`--files: the image is an NBD export: ${image}`, "FILES_NOT_NAMED", hint);
  }
  const why = whyFreed((await client.status()).snapshots, image);
  if (why !== undefined)
    throw usageError(`--files: ${why}`, "FILES_NOT_NAMED", "Wait until it has ended");
  const { changedFiles } = await import("../changed-files.js");
  return changedFiles(image, ranges);
}

function printSummary(context: Context, given: Given, found: Changes): void {
  const { print, bold } = context;
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

function fileTable({ files, outside_files_bytes }: ChangedFiles, exact: boolean): string {
  const outside = `${formatBytes(outside_files_bytes, exact)} in no file\n`;
  if (files.length === 0) return outside;
  const table = formatTable(files, [
    {
      title: "CHANGED",
      align: "right",
      value: ({ changed_bytes }) => formatBytes(changed_bytes, exact),
    },
    { title: "FILE", value: ({ path }) => printable(path) },
  ]);
  return table + outside;
}

/** A name may contain control sequences of terminals. */
function printable(path: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  return path.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?");
}
