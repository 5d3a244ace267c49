/** cbtinfo, readcbtmap and markdirtyblock. */
import { writeFile } from "node:fs/promises";
import { BlksnapClientError } from "@blksnap/client";
import { strerror } from "../strerror.js";
import { sectorsOf } from "../units.js";
import { usageError } from "../usage-error.js";
import { parsePath, parseRange } from "../values.js";
import type { Context, Given } from "../verb.js";

/** How users name it as a file. */
const STANDARD_OUTPUT = "-";

export async function cbtInfo(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const info = await client.cbtInfo(parsePath(given.need("device"), "device"));
  if (json) return printJson(info);
  print(
    `block_size=${info.block_bytes}\n` +
      `device_capacity=${info.capacity_bytes}\n` +
      `block_count=${info.block_count}\n` +
      `generation_id=${info.generation_id}\n` +
      `changes_number=${info.changes_number}\n`,
  );
}

export async function readCbtMap(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const file = given.need("file");
  if (file === STANDARD_OUTPUT) {
    if (json) throw usageError("file: the map and --json can't both go to standard output");
  } else parsePath(file, "file");
  const { info, map } = await client.readCbtMap(parsePath(given.need("device"), "device"));
  if (file === STANDARD_OUTPUT) return print(map);
  await writeFile(file, map).catch((cause: NodeJS.ErrnoException) => {
    const { errno, code, message } = cause;
    const why = errno === undefined ? message : `${strerror(-errno)} (${code})`;
    throw new BlksnapClientError("OUTPUT_FAILED", `can't write ${file}: ${why}`, { cause });
  });
  if (json) printJson({ ...info, file });
}

export async function markDirtyBlock(context: Context, given: Given): Promise<void> {
  const ranges = given.many("ranges");
  const file = given.one("file");
  if (ranges.length > 0 && file !== undefined) {
    throw usageError("--ranges and --file exclude each other", "USAGE", "Give one of them");
  }
  if (file !== undefined) return markFile(context, file, given.one("device"));
  const device = given.one("device");
  if (device === undefined) {
    throw usageError("Argument 'device' is missed", "USAGE", "Give --device DEVICE");
  }
  if (ranges.length === 0) {
    throw usageError("Argument 'ranges' is missed", "USAGE", "Give --ranges FIRST:COUNT or --file");
  }
  const path = parsePath(device, "device");
  const marked = await context.client.markDirty(path, ranges.map(parseRange));
  if (context.json) context.printJson(marked);
}

async function markFile(
  { client, json, print, printJson }: Context,
  file: string,
  device: string | undefined,
): Promise<void> {
  const marked = await client.markDirtyFile(
    parsePath(file, "file"),
    device === undefined ? undefined : parsePath(device, "device"),
  );
  if (json) return printJson(marked);
  print(`device path: '/dev/block/${marked.device_number}'\n`);
  for (const { firstSector, sectors } of marked.ranges.map(sectorsOf)) {
    print(`allocate range: ofs=${firstSector} cnt=${sectors}\n`);
  }
}
