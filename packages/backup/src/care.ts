/** Maintenance of a store: verify, prune, gc. */
import { ChunkPool } from "./chunk-pool.js";
import { CHUNK_BYTES, chunkLength } from "./chunks.js";
import { abortedError, BackupError } from "./errors.js";
import { chainKeys } from "./host.js";
import { inFlight } from "./in-flight.js";
import type { Manifest } from "./manifest.js";
import { Meter, type OnProgress } from "./progress.js";
import type { BackupStore, DamagedPoint } from "./store.js";

export interface CareOptions {
  /** Called with findings that end nothing. */
  readonly onNote?: ((text: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** A chunk that cannot be restored, and one place that needs it. */
export interface Damage {
  readonly hash: string;
  readonly why: string;
  readonly offset_bytes: number;
  readonly length_bytes: number;
  /** Ids of all points that need it. */
  readonly points: readonly string[];
}

export interface Verified {
  readonly points: number;
  readonly chunks: number;
  readonly damaged: readonly Damage[];
}

interface Needed {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly points: string[];
}

function neededBy(points: readonly Manifest[]): Map<string, Needed> {
  const needed = new Map<string, Needed>();
  for (const { id, chunks, capacity_bytes } of points) {
    for (const [index, hash] of chunks.entries()) {
      if (hash === null) continue;
      const known = needed.get(hash);
      if (known === undefined) {
        const lengthBytes = chunkLength(index, capacity_bytes);
        needed.set(hash, { offsetBytes: index * CHUNK_BYTES, lengthBytes, points: [id] });
      } else if (known.points.at(-1) !== id) known.points.push(id);
    }
  }
  return needed;
}

/** Reads and checks each chunk of these points, as long as the points exist: a prune and gc may run meanwhile. */
export async function verify(
  store: BackupStore,
  points: readonly Manifest[],
  { signal, onProgress }: CareOptions = {},
): Promise<Verified> {
  const needed = neededBy(points);
  const total = [...needed.values()].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const meter = new Meter(total, onProgress);
  const damaged: Damage[] = [];
  const missing: Damage[] = [];
  const pool = new ChunkPool();
  try {
    await inFlight(
      needed,
      store.depthWith(pool),
      async ([hash, { offsetBytes, lengthBytes, points: ids }]) => {
        if (signal?.aborted === true) throw abortedError();
        const found = await store.readChunk(hash, lengthBytes, pool);
        if (found.state !== "whole") {
          const place = { offset_bytes: offsetBytes, length_bytes: lengthBytes };
          const list = found.state === "missing" ? missing : damaged;
          list.push({ hash, why: found.why, ...place, points: ids });
        }
        meter.add(lengthBytes);
      },
    );
  } finally {
    await pool.close();
  }
  const left = missing.length === 0 ? points : await store.stillThere(points);
  const leftIds = new Set(left.map(({ id }) => id));
  for (const damage of missing) {
    const ids = damage.points.filter((id) => leftIds.has(id));
    if (ids.length > 0) damaged.push({ ...damage, points: ids });
  }
  return { points: left.length, chunks: needed.size, damaged };
}

/** How many points stay: the newest ones, and the newest of each of the last hours, days and weeks that have one. */
export interface Keep {
  readonly last?: number | undefined;
  readonly hourly?: number | undefined;
  readonly daily?: number | undefined;
  readonly weekly?: number | undefined;
}

const DAY_MS = 86_400_000;
/** Unix time began on a Thursday: its fifth day was a Monday. */
const FIRST_MONDAY_MS = 4 * DAY_MS;

const PERIODS: readonly (readonly [keyof Keep, (ms: number) => number])[] = [
  ["hourly", (ms) => Math.floor(ms / 3_600_000)],
  ["daily", (ms) => Math.floor(ms / DAY_MS)],
  ["weekly", (ms) => Math.floor((ms - FIRST_MONDAY_MS) / (7 * DAY_MS))],
];

/** Points of one device that the rules keep. @param points the oldest first */
function keptOf(points: readonly Manifest[], keep: Keep): Set<string> {
  const newestFirst = [...points].reverse();
  const kept = new Set(newestFirst.slice(0, keep.last ?? 0).map(({ id }) => id));
  for (const [name, periodOf] of PERIODS) {
    const seen = new Set<number>();
    for (const { id, taken_at } of newestFirst) {
      if (seen.size >= (keep[name] ?? 0)) break;
      const period = periodOf(Date.parse(taken_at));
      if (!seen.has(period)) kept.add(id);
      seen.add(period);
    }
  }
  return kept;
}

/**
 * A clock was wrong, that of its host or this one's: it may not be newer than the others. Clocks that are set differ
 * by less than a day.
 */
export function isOfFuture({ taken_at }: Manifest, nowMs: number = Date.now()): boolean {
  return Date.parse(taken_at) > nowMs + DAY_MS;
}

/**
 * Points that the rules keep, separately for each device of each host; times are in UTC. Points from the future stay
 * as well: one that counted would displace the newest for years.
 * @param nowMs in Unix time
 * @param isAll false: some points cannot be read. No more are removed than if they could
 */
export function keptPoints(
  points: readonly Manifest[],
  keep: Keep,
  nowMs: number = Date.now(),
  isAll = true,
): readonly Manifest[] {
  const chains = new Map<string, Manifest[]>();
  const keyOf = chainKeys(points, isAll);
  const ofFuture = new Set(points.filter((point) => isOfFuture(point, nowMs)));
  for (const point of points) {
    if (ofFuture.has(point)) continue;
    const chain = keyOf(point);
    chains.set(chain, [...(chains.get(chain) ?? []), point]);
  }
  const kept = new Set([...chains.values()].flatMap((chain) => [...keptOf(chain, keep)]));
  return points.filter((point) => ofFuture.has(point) || kept.has(point.id));
}

export interface PruneOptions extends CareOptions {
  /** Unix time; default: this host's clock. */
  readonly nowMs?: number | undefined;
}

/**
 * All points of a store that nothing else writes, and the manifests that are no points. Nothing is known of points of
 * a later version, not even whether they need others.
 * @throws BackupError BACKUP_VERSION
 */
async function pointsAlone(
  store: BackupStore,
): Promise<{ readonly points: readonly Manifest[]; readonly damaged: readonly DamagedPoint[] }> {
  const damaged: DamagedPoint[] = [];
  const points = await store.points((one) => damaged.push(one), true);
  const later = damaged.find(({ code }) => code === "BACKUP_VERSION");
  if (later !== undefined) throw new BackupError("BACKUP_VERSION", later.why);
  return { points, damaged };
}

/**
 * Removes the points that no rule keeps; gc frees their chunks. Any point can be removed, because none needs another.
 * A manifest that is no point stays, and no rule counts it: so no more is removed than if it were one.
 * @returns the points that are removed, or would be
 * @throws BackupError BACKUP_BUSY, BACKUP_VERSION, USAGE, ABORTED
 */
export async function prune(
  store: BackupStore,
  keep: Keep,
  isDryRun = false,
  { signal, onNote, nowMs = Date.now() }: PruneOptions = {},
): Promise<readonly Manifest[]> {
  if (!Object.values(keep).some((count) => (count ?? 0) > 0)) {
    const hint = "Give --keep-last, --keep-hourly, --keep-daily or --keep-weekly";
    throw new BackupError("USAGE", "nothing says which points to keep", { hint });
  }
  const lock = await store.lockAll("a prune");
  try {
    const { points, damaged } = await pointsAlone(store);
    for (const { why } of damaged) onNote?.(`${why}; it stays, and no rule counts it`);
    const isAll = damaged.length === 0;
    const kept = new Set(keptPoints(points, keep, nowMs, isAll).map(({ id }) => id));
    for (const point of points) {
      if (!isOfFuture(point, nowMs)) continue;
      const { id, device, taken_at } = point;
      const why = `point ${id} of ${device} was taken at ${taken_at}, which is in the future`;
      onNote?.(`${why}: it stays, and rules ignore it. Either its clock was wrong, or this one is`);
    }
    const removed = points.filter(({ id }) => !kept.has(id));
    if (isDryRun) return removed;
    for (const point of removed) {
      if (signal?.aborted === true) throw abortedError();
      lock.checkTime();
      await store.removePoint(point);
    }
    return removed;
  } finally {
    await lock.release();
  }
}

export interface Collected {
  readonly removed_chunks: number;
  readonly freed_bytes: number;
  readonly kept_chunks: number;
}

/** All points and manifests whose chunks must stay. @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
async function manifestsAlone(
  store: BackupStore,
  onNote: CareOptions["onNote"],
): Promise<readonly Manifest[]> {
  const { points, damaged } = await pointsAlone(store);
  const unknown = damaged.filter(({ misnamed }) => misnamed === undefined);
  if (unknown.length > 0) {
    const all = unknown.map(({ why }) => why).join("; ");
    const why = `${all}. Which chunks it needs is not known: nothing is freed`;
    const hint = `Restore it from a copy, or move it out of ${store.path}, which gives up its point`;
    throw new BackupError("BACKUP_DAMAGED", why, { hint });
  }
  for (const { why } of damaged) onNote?.(`${why}; what it needs stays`);
  return [...points, ...damaged.flatMap(({ misnamed }) => misnamed ?? [])];
}

/**
 * Removes chunks that no point needs, and leftovers of killed exports. An unreadable manifest ends it, because it may
 * need chunks of any host. Chunks of a manifest that only has a wrong name stay.
 * @throws BackupError BACKUP_BUSY, BACKUP_DAMAGED, BACKUP_VERSION
 */
export async function collectGarbage(
  store: BackupStore,
  { signal, onNote }: CareOptions = {},
): Promise<Collected> {
  const lock = await store.lockAll("a gc");
  try {
    const needed = new Set<string>();
    for (const { chunks } of await manifestsAlone(store, onNote)) {
      for (const hash of chunks) if (hash !== null) needed.add(hash);
    }
    // A point that a power cut restores would miss its chunks.
    await store.syncPoints();
    await lock.check();
    await store.removeUnfinished();
    const counts = { removed_chunks: 0, freed_bytes: 0, kept_chunks: 0 };
    await store.removeChunks(unneeded());
    return counts;

    async function* unneeded(): AsyncGenerator<string> {
      for await (const { hash, packedBytes } of store.chunks()) {
        if (signal?.aborted === true) throw abortedError();
        lock.checkTime();
        if (needed.has(hash)) {
          counts.kept_chunks++;
          continue;
        }
        counts.removed_chunks++;
        counts.freed_bytes += packedBytes;
        yield hash;
      }
    }
  } finally {
    await lock.release();
  }
}
