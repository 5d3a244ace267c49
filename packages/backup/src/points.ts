/** Finds the point that a user has selected. */
import { basename } from "node:path";
import { BackupError } from "./errors.js";
import { chainKeys, hostText, isHostNamed, isSameHost } from "./host.js";
import type { Manifest } from "./manifest.js";
import type { DamagedPoint } from "./store.js";

const ID_MIN = 4;

export interface PointWish {
  /** Beginning of an id, or a time: the newest point not after it. Default: the newest. */
  readonly at?: string | undefined;
  /** Only of this original. */
  readonly device?: string | undefined;
  /** Only of this host: its name, or the beginning of its machine id. */
  readonly host?: string | undefined;
}

/** ISO 8601, in UTC or with an offset; else by the clock of this host. */
const TIME = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/i;

/** NaN if it is no time. `Date.parse` accepts nearly anything, even the beginning of an id. */
function timeIn(at: string): number {
  return TIME.test(at) ? Date.parse(at) : Number.NaN;
}

/**
 * Fails if an unreadable manifest may be the selected point: the newest one not after that time.
 * @param found by the same selection
 * @throws BackupError BACKUP_DAMAGED
 */
export function checkMeant(
  damaged: readonly DamagedPoint[],
  found: Manifest,
  { at }: PointWish,
): void {
  if (at !== undefined && at.length >= ID_MIN && found.id.startsWith(at)) return;
  const fromMs = Math.floor(Date.parse(found.taken_at) / 1000) * 1000;
  const untilMs = at === undefined ? Number.POSITIVE_INFINITY : timeIn(at);
  for (const { takenAt, why, misnamed } of damaged) {
    if (misnamed !== undefined && !mayBeMeant(misnamed, found)) continue;
    const ms = Date.parse(takenAt);
    if (ms < fromMs || ms > untilMs) continue;
    const hint = `Give the id of a point: --at ${found.id.slice(0, 8)} is readable`;
    throw new BackupError("BACKUP_DAMAGED", `${why}; it may be the requested point`, { hint });
  }
}

/** It is another point of the same device. */
function mayBeMeant(one: Manifest, found: Manifest): boolean {
  return one.id !== found.id && one.device === found.device && isSameHost(one, found);
}

/**
 * Fails if the given id is that of an unreadable manifest, or if there are only such.
 * @param points readable ones
 * @throws BackupError BACKUP_DAMAGED
 */
export function checkReadable(
  damaged: readonly DamagedPoint[],
  points: readonly Manifest[],
  { at }: PointWish,
): void {
  const isNamed = ({ path }: DamagedPoint): boolean =>
    at !== undefined && at.length >= ID_MIN && idIn(path).startsWith(at);
  const named = damaged.find(isNamed) ?? (points.length === 0 ? damaged[0] : undefined);
  if (named !== undefined) throw new BackupError("BACKUP_DAMAGED", named.why);
}

/** Name of a manifest's file: TIME-ID.json. */
function idIn(path: string): string {
  const name = basename(path, ".json");
  return name.slice(name.indexOf("-") + 1);
}

/** Whether it is of the selected device and host. */
export function isMeant(
  point: Pick<Manifest, "device" | "host" | "machine_id">,
  { device, host }: PointWish,
): boolean {
  if (device !== undefined && point.device !== device) return false;
  return host === undefined || isHostNamed(point, host);
}

/** @throws BackupError BACKUP_NOT_FOUND */
export function findPoint<
  Point extends Pick<Manifest, "id" | "device" | "host" | "machine_id" | "taken_at">,
>(points: readonly Point[], wish: PointWish): Point {
  const { at, device, host } = wish;
  const none = (why: string, hint?: string): BackupError =>
    new BackupError("BACKUP_NOT_FOUND", why, hint === undefined ? {} : { hint });
  const some = points.filter((point) => isMeant(point, wish));
  if (some.length === 0) {
    const of = host === undefined ? "" : ` of ${host}`;
    throw none(`there is no point of ${device ?? "any device"}${of}`);
  }
  const byId =
    at !== undefined && at.length >= ID_MIN ? some.filter(({ id }) => id.startsWith(at)) : [];
  if (byId.length === 1) return byId[0]!;
  if (byId.length > 1) throw none(`several points begin with ${at}`, "Give more of its id");
  const keyOf = chainKeys(some);
  const chains = new Map(
    some.map((point) => [keyOf(point), `${point.device} of ${hostText(point)}`]),
  );
  if (chains.size > 1) {
    const hint = "Say which with --device and --host, or give the id of a point with --at";
    throw none(`there are points of ${[...chains.values()].sort().join(", ")}`, hint);
  }
  if (at === undefined) return some.at(-1)!;
  const atMs = timeIn(at);
  if (Number.isNaN(atMs)) {
    const hint = "Give the beginning of an id that list shows, or a time such as 2038-01-01T06:00Z";
    throw none(`no point's id begins with ${at}, and that is not a time`, hint);
  }
  const found = some.findLast(({ taken_at }) => Date.parse(taken_at) <= atMs);
  if (found === undefined) throw none(`the oldest point is of ${some[0]!.taken_at}`);
  return found;
}
