/** Maintenance of exports: list, prune, gc. These need no daemon, and write no tracked device. */
import type { Readable } from "node:stream";
import type { BackupStore, DamagedPoint, Manifest, PointWish } from "@blksnap/backup";
import { openBackups } from "../backup-place.js";
import { formatTable } from "../table.js";
import { counted, formatBytes } from "../units.js";
import { usageError } from "../usage-error.js";
import { parseHost, parseNumber, parsePath, parsePoint } from "../values.js";
import type { Context, Given } from "../verb.js";

const KEPT_MAX = 100_000;
const RULES = ["last", "hourly", "daily", "weekly"] as const;

export function wishOf(given: Given): PointWish {
  const [at, device, host] = [given.one("at"), given.one("device"), given.one("host")];
  return {
    ...(at === undefined ? {} : { at: parsePoint(at) }),
    ...(device === undefined ? {} : { device: parsePath(device, "device") }),
    ...(host === undefined ? {} : { host: parseHost(host) }),
  };
}

export async function pointsOf(
  store: BackupStore,
  wish: PointWish,
  onDamage: (damage: DamagedPoint) => void,
): Promise<readonly Manifest[]> {
  const points = await store.points(onDamage);
  const { isMeant } = await import("@blksnap/backup");
  return points.filter((point) => isMeant(point, wish));
}

/** A point without its chunks and ranges. */
export function summaryOf({ chunks: _, ranges: __, ...summary }: Manifest): object {
  return summary;
}

/** Refuses options that select a point if the source has only one. @param what "a stream" */
export function checkNoChoice(given: Given, what: string, ...options: readonly string[]): void {
  for (const option of options) {
    if (!given.has(option)) continue;
    throw usageError(`${option}: ${what} needs no such option`, "USAGE", `Omit --${option}`);
  }
}

export function streamInput({ streams }: Context): Readable {
  if (!streams.isInTerminal) return streams.input();
  const hint = "Give it a stream: blksnapctl export ... --to - | blksnapctl ... --from -";
  throw usageError("from: standard input is a terminal", "USAGE", hint);
}

export async function list(context: Context, given: Given): Promise<void> {
  const { json, print, printJson, bold } = context;
  const wish = wishOf(given);
  const points = await pointsOf(await openBackups(context, given, "from", false), wish, ({ why }) =>
    context.warn(`${why}; it is skipped`),
  );
  if (json) return printJson({ points: points.map(summaryOf) });
  const exact = given.has("bytes");
  const table = formatTable(points, [
    { title: "POINT", value: ({ id }) => id.slice(0, 8) },
    { title: "TAKEN", value: ({ taken_at }) => taken_at },
    { title: "DEVICE", value: ({ device }) => device },
    { title: "HOST", value: ({ host }) => host },
    { title: "KIND", value: ({ kind }) => kind },
    { title: "NUMBER", align: "right", value: ({ changes_number }) => String(changes_number) },
    { title: "READ", align: "right", value: ({ read_bytes }) => formatBytes(read_bytes, exact) },
    { title: "STORED", align: "right", value: (one) => formatBytes(one.stored_bytes, exact) },
  ]);
  const [titles = "", ...rows] = table.split("\n");
  print([bold(titles), ...rows].join("\n"));
}

export async function prunePoints(context: Context, given: Given): Promise<void> {
  const { json, print, printJson, warn } = context;
  const keep: { [Rule in (typeof RULES)[number]]?: number } = {};
  for (const rule of RULES) {
    const option = `keep-${rule}`;
    const text = given.one(option);
    if (text !== undefined) keep[rule] = parseNumber(text, option, KEPT_MAX);
  }
  if (!RULES.some((rule) => (keep[rule] ?? 0) > 0)) {
    const hint = "Give --keep-last, --keep-hourly, --keep-daily or --keep-weekly";
    throw usageError("nothing says which points to keep", "USAGE", hint);
  }
  const isDryRun = given.has("dry-run");
  const signal = context.untilInterrupted();
  const store = await openBackups(context, given, "from", false, signal);
  const { prune } = await import("@blksnap/backup");
  const removed = await prune(store, keep, isDryRun, { signal, onNote: warn });
  if (json) return printJson({ removed: removed.map(summaryOf), dry_run: isDryRun });
  const verb = isDryRun ? "would remove" : "removed";
  print(
    removed.map(({ id, device, taken_at }) => `${verb} ${id} ${device} ${taken_at}\n`).join("") ||
      "nothing to remove\n",
  );
}

export async function gc(context: Context, given: Given): Promise<void> {
  const { json, print, printJson, warn: onNote } = context;
  const signal = context.untilInterrupted();
  const store = await openBackups(context, given, "from", false, signal);
  const done = await (await import("@blksnap/backup")).collectGarbage(store, { signal, onNote });
  if (json) return printJson(done);
  const freed = formatBytes(done.freed_bytes, false);
  print(
    `freed ${freed} of ${counted(done.removed_chunks, "chunk")}; still needed: ${done.kept_chunks}\n`,
  );
}
