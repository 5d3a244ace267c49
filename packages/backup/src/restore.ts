/** Restores a point: checks each chunk before writing it. */
import { realpath } from "node:fs/promises";
import { join } from "node:path";
import { knownStackOf, lookUpPath } from "@blksnap/linux-block";
import { ChunkPool } from "./chunk-pool.js";
import { CHUNK_BYTES, chunkLength } from "./chunks.js";
import { abortedError, BackupError } from "./errors.js";
import { inFlight } from "./in-flight.js";
import { withTargetLock } from "./lock.js";
import { pointChunk, type StoredPoint } from "./point-chunk.js";
import { Meter, type OnProgress } from "./progress.js";
import { readRecord, recordPathOf } from "./raw-record.js";
import { isComplete, RawTarget, targetAt, targetKind } from "./raw-target.js";

/** Granularity of comparing and writing differences. */
const BLOCK_BYTES = 4096;

export interface RestoreOptions extends StoredPoint {
  readonly target: string;
  /** Compare with the present content, and write only differences. */
  readonly isDelta?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Restored {
  readonly capacity_bytes: number;
  readonly written_bytes: number;
}

interface Run {
  readonly startBytes: number;
  readonly endBytes: number;
}

/** Ranges in which `wanted` differs from `found`, in whole blocks. */
export function differences(wanted: Uint8Array, found: Uint8Array): readonly Run[] {
  const runs: { startBytes: number; endBytes: number }[] = [];
  for (let at = 0; at < wanted.length; at += BLOCK_BYTES) {
    const endBytes = Math.min(at + BLOCK_BYTES, wanted.length);
    if (Buffer.compare(wanted.subarray(at, endBytes), found.subarray(at, endBytes)) === 0) continue;
    const last = runs.at(-1);
    if (last?.endBytes === at) last.endBytes = endBytes;
    else runs.push({ startBytes: at, endBytes });
  }
  return runs;
}

async function checkTarget({ target, isDelta }: RestoreOptions): Promise<void> {
  const kind = await targetKind(target);
  if (kind === "folder") {
    const hint = "Name a file or a block device";
    throw new BackupError("TARGET_EXISTS", `${target} is a folder`, { hint });
  }
  // A missing copy may be in progress: its record exists before it has its name.
  if ((await readRecord(recordPathOf(target))) !== undefined) {
    throw new BackupError("TARGET_EXISTS", `${target} is a raw copy that export keeps up to date`);
  }
  if (kind !== "file" || isDelta === true || !(await isComplete(target))) return;
  const hint = "Bring it up to date with --delta, or name another file";
  throw new BackupError("TARGET_EXISTS", `${target} exists`, { hint });
}

/** A store is no target, nor what it lies on: `--delta` would overwrite points and chunks. */
async function checkOutside({ store, target }: RestoreOptions): Promise<void> {
  // An object store is not a folder.
  const folder = await realpath(store.path).catch(() => undefined);
  if (folder === undefined) return;
  const refused = (what: string, hint: string): BackupError =>
    new BackupError("TARGET_EXISTS", `${target} ${what} ${store.path}`, { hint });
  if (target.startsWith(join(folder, "/"))) {
    throw refused("lies in the backups at", "Name a target outside of it");
  }
  const there = await lookUpPath(target).catch(() => undefined);
  if (there === undefined || !(await knownStackOf(folder)).has(there.identity)) return;
  throw refused("is what holds the backups at", "Name another target");
}

class Restoring {
  readonly #options: RestoreOptions;
  readonly #target: RawTarget;
  readonly #pool: ChunkPool;
  #writtenBytes = 0;

  constructor(options: RestoreOptions, target: RawTarget, pool: ChunkPool) {
    this.#options = options;
    this.#target = target;
    this.#pool = pool;
  }

  async run(): Promise<Restored> {
    const { point, signal, onProgress } = this.#options;
    const { capacity_bytes } = point;
    const meter = new Meter(capacity_bytes, onProgress);
    await inFlight(
      point.chunks.keys(),
      this.#options.store.depthWith(this.#pool),
      async (index) => {
        if (signal?.aborted === true) throw abortedError();
        await this.#chunk(index, chunkLength(index, capacity_bytes));
        meter.add(chunkLength(index, capacity_bytes));
      },
    );
    await this.#target.finish();
    return { capacity_bytes, written_bytes: this.#writtenBytes };
  }

  async #chunk(index: number, lengthBytes: number): Promise<void> {
    const hash = this.#options.point.chunks[index]!;
    const offsetBytes = index * CHUNK_BYTES;
    if (hash === null && this.#target.isBlank) return;
    const isHead = offsetBytes < this.#target.headBytes;
    if (this.#options.isDelta !== true || isHead) {
      return this.#write(await pointChunk(this.#options, index, this.#pool), offsetBytes);
    }
    const there = new Uint8Array(lengthBytes);
    await this.#target.read(there, offsetBytes);
    const { data: found, hash: hashThere } = await this.#pool.digest(there);
    if (hashThere === hash) return;
    const wanted = await pointChunk(this.#options, index, this.#pool);
    for (const { startBytes, endBytes } of differences(wanted, found)) {
      await this.#write(wanted.subarray(startBytes, endBytes), offsetBytes + startBytes);
    }
  }

  async #write(data: Uint8Array, offsetBytes: number): Promise<void> {
    await this.#target.write(data, offsetBytes);
    this.#writtenBytes += data.length;
  }
}

async function restoreLocked(options: RestoreOptions): Promise<Restored> {
  const { target, point, isDelta = false } = options;
  await checkTarget(options);
  const capacityBytes = point.capacity_bytes;
  const to = await RawTarget.begin({ path: target, capacityBytes, isUpdate: isDelta });
  const pool = new ChunkPool();
  try {
    return await new Restoring(options, to, pool).run();
  } finally {
    await Promise.all([to.close(), pool.close()]);
  }
}

/**
 * If it is interrupted or fails, the target does not look complete, and can be restored again.
 * @throws BackupError BACKUP_DAMAGED, BACKUP_BUSY, TARGET_EXISTS, TARGET_TOO_SMALL, TARGET_IN_USE, TARGET_FULL
 */
export async function restore(given: RestoreOptions): Promise<Restored> {
  const options = { ...given, target: await targetAt(given.target) };
  const { target } = options;
  await checkOutside(options);
  const kind = await targetKind(target);
  // The kernel opens a block device for only one program at a time; a folder is refused.
  if (kind === "block" || kind === "folder") return restoreLocked(options);
  const record = recordPathOf(target);
  return withTargetLock(record, `a restore to ${target}`, () => restoreLocked(options));
}
