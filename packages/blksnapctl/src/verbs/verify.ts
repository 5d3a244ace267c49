/** verify: reads every kind of export again and checks it. */
import type { CopiesVerified, CopyDamage, Damage, DamagedPoint } from "@blksnap/backup";
import { BlksnapClientError } from "@blksnap/client";
import { checkBucketOptions, isLocal, openBackups } from "../backup-place.js";
import { progressReporter } from "../transfer.js";
import { counted, formatBytes } from "../units.js";
import { usageError } from "../usage-error.js";
import { parsePath, STANDARD_STREAM } from "../values.js";
import type { Context, Given } from "../verb.js";
import { checkNoChoice, pointsOf, streamInput, wishOf } from "./backups.js";

const DAMAGE_SHOWN_MAX = 20;

async function verifyInput(context: Context, given: Given): Promise<void> {
  const { json, print, printJson } = context;
  checkNoChoice(given, "a stream", "at", "device", "host", "endpoint", "region", "record");
  const input = streamInput(context);
  const { verifyStream } = await import("@blksnap/backup");
  const [signal, onProgress] = [context.untilInterrupted(), progressReporter(context, "verify")];
  const done = await verifyStream({ input, signal, onProgress });
  if (json) return printJson({ event: "done", ...done });
  print(`verified: a stream of ${done.device} of ${done.taken_at} (${done.kind})\n`);
}

function damageLine({ why, points, offset_bytes }: Damage): string {
  const more = points.length === 1 ? "" : ` and ${points.length - 1} more`;
  return `${why}; needed at byte ${offset_bytes} of point ${points[0]}${more}\n`;
}

async function verifyStore(context: Context, given: Given): Promise<void> {
  const { json, print, printJson } = context;
  const wish = wishOf(given);
  const signal = context.untilInterrupted();
  const store = await openBackups(context, given, "from", false, signal);
  const { findPoint, verify } = await import("@blksnap/backup");
  const unread: DamagedPoint[] = [];
  const all = await pointsOf(store, wish, (one) => unread.push(one));
  const points = wish.at === undefined ? all : [findPoint(all, wish)];
  const found = await verify(store, points, {
    signal,
    onProgress: progressReporter(context, "verify"),
  });
  const manifests = unread.map(({ why }) => why);
  if (json) printJson({ event: "done", ...found, damaged_manifests: manifests });
  const { damaged } = found;
  if (!json) print(manifests.map((why) => `${why}\n`).join(""));
  if (damaged.length === 0 && unread.length > 0) {
    const hint =
      "Rename wrongly named ones back, and move the others out of the folder, which gives up their points: gc needs that";
    throw new BlksnapClientError(
      "BACKUP_DAMAGED",
      `${counted(unread.length, "manifest")} cannot be read`,
      {
        hint,
      },
    );
  }
  if (damaged.length === 0) {
    if (!json)
      print(`verified: ${counted(found.points, "point")}, ${counted(found.chunks, "chunk")}\n`);
    return;
  }
  if (!json) print(damaged.slice(0, DAMAGE_SHOWN_MAX).map(damageLine).join(""));
  const why = `${counted(damaged.length, "chunk")} of ${found.chunks} damaged or missing`;
  const hint =
    "Remove the named files: an export without --auto and --since rewrites what the device still holds";
  throw new BlksnapClientError("BACKUP_DAMAGED", why, { hint });
}

function copyLine({ path, why, offset_bytes, length_bytes }: CopyDamage): string {
  return `${path} is damaged: ${why}, at bytes ${offset_bytes} to ${offset_bytes + length_bytes}\n`;
}

function reportCopies({ json, print, printJson, warn }: Context, found: CopiesVerified): void {
  const { points, checked_bytes, damaged, notes } = found;
  for (const note of notes) warn(note);
  if (json) printJson({ event: "done", ...found });
  else print(damaged.slice(0, DAMAGE_SHOWN_MAX).map(copyLine).join(""));
  if (damaged.length > 0) {
    const places = damaged.length === 1 ? "1 place is" : `${damaged.length} places are`;
    throw new BlksnapClientError("BACKUP_DAMAGED", `${places} damaged or cannot be read`, {
      hint: "Export in full: omit --auto and --since",
    });
  }
  if (!json)
    print(`verified: ${counted(points, "point")}, ${formatBytes(checked_bytes, false)} compared\n`);
}

async function verifyCopy(context: Context, given: Given, target: string): Promise<void> {
  checkNoChoice(given, "a raw copy", "at", "device", "host");
  const text = given.one("record");
  const record = text === undefined ? undefined : parsePath(text, "record");
  const signal = context.untilInterrupted();
  const { verifyRaw } = await import("@blksnap/backup");
  const onProgress = progressReporter(context, "verify");
  reportCopies(context, await verifyRaw({ target, record, signal, onProgress }));
}

async function verifyChain(context: Context, given: Given, folder: string): Promise<void> {
  const signal = context.untilInterrupted();
  const { verifyQcow2 } = await import("@blksnap/backup");
  const onProgress = progressReporter(context, "verify");
  reportCopies(context, await verifyQcow2({ folder, ...wishOf(given), signal, onProgress }));
}

export async function verify(context: Context, given: Given): Promise<void> {
  const from = given.need("from");
  if (from === STANDARD_STREAM) return await verifyInput(context, given);
  checkBucketOptions(given, from);
  const { holdsQcow2, isRawCopy } = await import("@blksnap/backup");
  const path = isLocal(from) ? parsePath(from, "from") : undefined;
  if (path !== undefined && (await isRawCopy(path))) return await verifyCopy(context, given, path);
  if (given.has("record")) {
    throw usageError("record: it is for raw copies", "USAGE", "Omit --record");
  }
  if (path === undefined || !(await holdsQcow2(path))) return await verifyStore(context, given);
  await verifyChain(context, given, path);
}
