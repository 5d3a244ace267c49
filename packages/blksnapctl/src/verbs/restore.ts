/** restore: a point in time or a stream, to a file or block device; or a point as an NBD export. */
import { resolve } from "node:path";
import type { BackupStore, DamagedPoint, Manifest, PointWish } from "@blksnap/backup";
import { openBackups } from "../backup-place.js";
import { progressReporter } from "../transfer.js";
import { formatBytes } from "../units.js";
import { usageError } from "../usage-error.js";
import { parsePath, parseSocket, STANDARD_STREAM } from "../values.js";
import type { Context, Given } from "../verb.js";
import { checkNoChoice, streamInput, summaryOf, wishOf } from "./backups.js";

async function restoreInput(context: Context, given: Given): Promise<void> {
  const { json, print, printJson } = context;
  checkNoChoice(given, "a stream", "at", "device", "host", "delta", "endpoint", "region", "nbd");
  const target = parsePath(given.need("to"), "to");
  const text = given.one("record");
  const record = text === undefined ? undefined : parsePath(text, "record");
  const input = streamInput(context);
  const { checkUntracked, restoreStream } = await import("@blksnap/backup");
  await checkUntracked(context.client, target);
  const [signal, onProgress] = [context.untilInterrupted(), progressReporter(context, "restore")];
  const done = await restoreStream({ input, target, record, signal, onProgress });
  if (json) return printJson({ event: "done", ...done });
  const written = formatBytes(done.written_bytes, false);
  const { kind, device, taken_at } = done;
  print(`restored: ${device} of ${taken_at} (${kind}), ${written} written to ${target}\n`);
}

/** The selected point; only if no unreadable one could be meant. */
async function pointIn(context: Context, store: BackupStore, wish: PointWish): Promise<Manifest> {
  const { checkMeant, checkReadable, findPoint, isOfFuture } = await import("@blksnap/backup");
  const unread: DamagedPoint[] = [];
  const points = await store.points((one) => unread.push(one));
  checkReadable(unread, points, wish);
  const point = findPoint(points, wish);
  checkMeant(unread, point, wish);
  for (const { why } of unread) context.warn(`${why}; it is skipped`);
  if (isOfFuture(point)) {
    const when = `was taken at ${point.taken_at}, which is in the future`;
    context.warn(`point ${point.id} ${when}: it may not be the newest one. See list`);
  }
  return point;
}

/** Serves until it is interrupted. */
async function browse(context: Context, given: Given): Promise<void> {
  const stray = ["to", "delta"].find((option) => given.has(option));
  if (stray !== undefined) {
    throw usageError(`${stray}: --nbd writes nothing`, "USAGE", `Omit --${stray} or --nbd`);
  }
  // Absolute: clients in other folders use its address.
  const socketPath = resolve(parseSocket(given.need("nbd"), "nbd"));
  const wish = wishOf(given);
  const signal = context.untilInterrupted();
  const store = await openBackups(context, given, "from", false, signal);
  const point = await pointIn(context, store, wish);
  const { servePoint } = await import("@blksnap/backup");
  const server = await servePoint({ store, point, socketPath, onNote: context.warn });
  if (context.json) {
    context.printJson({ event: "serving", ...summaryOf(point), nbd_uri: server.uri });
  } else context.print(`${server.uri}\n`);
  try {
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener("abort", () => resolve());
    });
    await Promise.race([stopped, server.ended]);
  } finally {
    await server.stop();
  }
}

async function restoreTo(context: Context, given: Given): Promise<void> {
  const { json, print, printJson } = context;
  const target = parsePath(given.need("to"), "to");
  const wish = wishOf(given);
  const signal = context.untilInterrupted();
  const store = await openBackups(context, given, "from", false, signal);
  const { checkUntracked, restore } = await import("@blksnap/backup");
  await checkUntracked(context.client, target);
  const point = await pointIn(context, store, wish);
  const onProgress = progressReporter(context, "restore");
  const isDelta = given.has("delta");
  const done = await restore({ store, point, target, isDelta, signal, onProgress });
  if (json) return printJson({ event: "done", ...summaryOf(point), ...done });
  const written = formatBytes(done.written_bytes, false);
  print(`restored: ${point.device} of ${point.taken_at}, ${written} written to ${target}\n`);
}

export async function restorePoint(context: Context, given: Given): Promise<void> {
  const isStream = given.need("from") === STANDARD_STREAM;
  if (!given.has("to") && (isStream || !given.has("nbd"))) {
    const hint = isStream ? "Give --to PATH" : "Give --to PATH, or --nbd SOCKET to browse it";
    throw usageError("Argument 'to' is missed", "USAGE", hint);
  }
  if (isStream) return await restoreInput(context, given);
  if (given.has("record")) {
    throw usageError("record: it is for streams", "USAGE", "Omit --record");
  }
  await (given.has("nbd") ? browse : restoreTo)(context, given);
}
