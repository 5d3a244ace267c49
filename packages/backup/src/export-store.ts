/** Exports a device into a store: stores new chunks, then a manifest that names all of them. */
import { randomUUID } from "node:crypto";
import type { DiffRange } from "@blksnap/api";
import { ChunkPool } from "./chunk-pool.js";
import {
  bytesToRead,
  CAPACITY_MAX_BYTES,
  CHUNK_BYTES,
  chunkCount,
  chunkLength,
  lengthOf,
  type Piece,
  piecesByChunk,
} from "./chunks.js";
import {
  type DoneChunks,
  type DoneChunksOptions,
  doneChunks,
  type KeptReason,
  keptReason,
} from "./done-chunks.js";
import { abortedError, BackupError } from "./errors.js";
import { lengthOfContent } from "./files.js";
import {
  type HostIdentity,
  type HostOptions,
  hostOf,
  isSameHost,
  otherMachineNote,
} from "./host.js";
import { inFlight } from "./in-flight.js";
import { type Manifest, RANGES_MAX } from "./manifest.js";
import { wholeRanges } from "./parts.js";
import { type Plan, planExport, type Wanted } from "./plan.js";
import { Meter, type OnProgress } from "./progress.js";
import { type SnapshotOptions, type TakenSnapshot, withSnapshot } from "./snapshot.js";
import { type ImageReader, openImage } from "./source.js";
import type { BackupStore } from "./store.js";
import type { StoreLock } from "./store-lock.js";

/** State of a chunk in flight. */
const PIECES_IN_FLIGHT = 8;

export interface ExportOptions extends SnapshotOptions, HostOptions, DoneChunksOptions {
  readonly wanted: Wanted;
  readonly onProgress?: OnProgress | undefined;
  /** Called with what will be read, in advance. */
  readonly onPlan?: ((plan: ExportPlan) => void) | undefined;
  /** Default: the image's block device. */
  readonly open?: ((image: string, exported: string | null) => Promise<ImageReader>) | undefined;
  /** For a raw or qcow2 copy: less is copied without threads, unless it is in very many parts. Default: 256 MiB. */
  readonly threadsMinBytes?: number | undefined;
}

export interface ExportPlan {
  readonly kind: "full" | "incremental";
  /** Why `auto` continues no chain; null if it does, or a full export was requested. */
  readonly reason: string | null;
  readonly total_bytes: number;
  /** Why what was read stays in the diff storage until the end; null where it is freed. */
  readonly kept: KeptReason | null;
}

function totalOf(pieces: ReadonlyMap<number, readonly Piece[]>): number {
  return [...pieces.values()].reduce((sum, some) => sum + bytesToRead(some), 0);
}

/** One export, from a plan to a manifest. */
class StoreExport {
  readonly #store: BackupStore;
  readonly #pool: ChunkPool;
  readonly #image: ImageReader;
  readonly #snapshot: TakenSnapshot;
  readonly #options: ExportOptions;
  /** Chunks of this point that were not in the previous one. */
  readonly #fresh = new Set<string>();
  /** Chunks that were written: new ones, and damaged ones that were in the store. */
  readonly #written = new Set<string>();
  /** Reusable memory of finished chunks. */
  readonly #idle: Uint8Array<ArrayBuffer>[] = [];
  #readBytes = 0;
  #storedBytes = 0;

  constructor(
    store: BackupStore,
    pool: ChunkPool,
    image: ImageReader,
    snapshot: TakenSnapshot,
    options: ExportOptions,
  ) {
    this.#store = store;
    this.#pool = pool;
    this.#image = image;
    this.#snapshot = snapshot;
    this.#options = options;
  }

  async run(plan: Plan<Manifest>, host: HostIdentity, lock: StoreLock): Promise<Manifest> {
    const { capacityBytes } = this.#snapshot;
    const chunks: (string | null)[] =
      plan.kind === "full"
        ? new Array(chunkCount(capacityBytes)).fill(null)
        : [...plan.base.chunks];
    const pieces = piecesByChunk(await this.#rangesOf(plan), capacityBytes);
    const freed = this.#begin(plan, pieces);
    await this.#copy(chunks, pieces, freed).finally(freed.end);
    await this.#image.sync();
    await this.#snapshot.check(freed.end());
    await this.#image.close();
    this.#snapshot.release();
    await this.#store.syncChunks(this.#fresh);
    await lock.check();
    const manifest = this.#manifest(plan, host, chunks);
    await this.#store.publish(manifest);
    // A gc that considered this export dead may have removed chunks of the point.
    await lock.check().catch(async (error: unknown) => {
      await this.#store.removePoint(manifest);
      throw error;
    });
    return manifest;
  }

  /** For a full export: everything that holds data. Other chunks stay zeros, as all are at first. */
  async #rangesOf(plan: Plan<Manifest>): Promise<readonly DiffRange[]> {
    if (plan.kind === "incremental") return plan.ranges;
    const { capacityBytes } = this.#snapshot;
    const all = wholeRanges(capacityBytes, await this.#image.emptyRanges());
    return all.filter(({ kind }) => kind === "changed");
  }

  /** Tells what will be read. */
  #begin(plan: Plan<Manifest>, pieces: ReadonlyMap<number, readonly Piece[]>): DoneChunks {
    const total_bytes = totalOf(pieces);
    const kept = keptReason(this.#snapshot, total_bytes, this.#options);
    const reason = plan.kind === "full" ? plan.reason : null;
    this.#options.onPlan?.({ kind: plan.kind, reason, total_bytes, kept });
    const places = [...pieces.keys()].map((index) => index * CHUNK_BYTES);
    return doneChunks(this.#snapshot, places, kept, this.#options);
  }

  async #copy(
    chunks: (string | null)[],
    pieces: ReadonlyMap<number, readonly Piece[]>,
    freed: DoneChunks,
  ): Promise<void> {
    const meter = new Meter(totalOf(pieces), this.#options.onProgress);
    await inFlight(pieces, this.#store.depthWith(this.#pool), async ([index, changed]) => {
      if (this.#options.signal?.aborted === true) throw abortedError();
      chunks[index] = await this.#chunk(index, changed, chunks[index]!);
      meter.add(bytesToRead(changed));
      freed.done(index * CHUNK_BYTES);
    });
  }

  /** Stores a chunk with its present content, and returns its hash. */
  async #chunk(
    index: number,
    pieces: readonly Piece[],
    before: string | null,
  ): Promise<string | null> {
    const lengthBytes = chunkLength(index, this.#snapshot.capacityBytes);
    const { content, isLost } = await this.#content(index, lengthBytes, pieces, before);
    const { data, hash } = await this.#pool.digest(content);
    const isKnown = hash === null || (hash === before && !isLost);
    const left = isKnown ? data : await this.#keep(hash, data, isLost);
    if (left.length === CHUNK_BYTES) this.#idle.push(left);
    return hash;
  }

  /** Puts the chunk into the store. Returns its content again. */
  async #keep(
    hash: string,
    content: Uint8Array<ArrayBuffer>,
    isLost: boolean,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const isNew = !this.#fresh.has(hash);
    this.#fresh.add(hash);
    const isMissing = isLost || (isNew && !(await this.#store.hasChunk(hash)));
    if (!isMissing || this.#written.has(hash)) return content;
    this.#written.add(hash);
    const { data, packed, packedHash } = await this.#pool.pack(content, this.#store.isHashed);
    const packedBytes = lengthOfContent(packed);
    await this.#store.addChunk(hash, packed, packedHash);
    this.#storedBytes += packedBytes;
    return data;
  }

  /** `isLost`: the store no longer has the chunk's former content. */
  async #content(
    index: number,
    lengthBytes: number,
    pieces: readonly Piece[],
    before: string | null,
  ): Promise<{ readonly content: Uint8Array<ArrayBuffer>; readonly isLost: boolean }> {
    const isWhole = lengthOf(pieces) === lengthBytes;
    const base = isWhole ? undefined : await this.#before(before, lengthBytes);
    // Reuse: the kernel clears new memory and allocates it page by page.
    const idle = isWhole && lengthBytes === CHUNK_BYTES ? this.#idle.pop() : undefined;
    const data = base ?? idle ?? new Uint8Array(lengthBytes);
    const isLost = !isWhole && base === undefined && before !== null;
    const parts: readonly Piece[] = isLost
      ? [{ startBytes: 0, lengthBytes, isDiscarded: false }]
      : pieces;
    const fill = async ({ startBytes, lengthBytes: bytes, isDiscarded }: Piece): Promise<void> => {
      const place = data.subarray(startBytes, startBytes + bytes);
      if (isDiscarded) place.fill(0);
      else {
        await this.#image.read(place, index * CHUNK_BYTES + startBytes);
        this.#readBytes += bytes;
      }
    };
    await inFlight(parts, PIECES_IN_FLIGHT, fill);
    return { content: data, isLost };
  }

  /** The chunk's content in the previous point; undefined for zeros, and if it is unreadable. */
  async #before(
    hash: string | null,
    lengthBytes: number,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    if (hash === null) return undefined;
    const found = await this.#store.readChunk(hash, lengthBytes, this.#pool);
    if (found.state === "whole") return found.data;
    this.#options.onNote?.(`${found.why}; the image is read instead`);
    return undefined;
  }

  #manifest(
    plan: Plan<Manifest>,
    host: HostIdentity,
    chunks: readonly (string | null)[],
  ): Manifest {
    const { device, takenAt, capacityBytes, generationId, changesNumber } = this.#snapshot;
    const isListed = plan.kind === "incremental" && plan.ranges.length <= RANGES_MAX;
    return {
      id: randomUUID(),
      taken_at: takenAt,
      ...host,
      device,
      capacity_bytes: capacityBytes,
      chunk_bytes: CHUNK_BYTES,
      generation_id: generationId,
      changes_number: changesNumber,
      kind: plan.kind,
      parent: plan.kind === "full" ? null : plan.base.id,
      read_bytes: this.#readBytes,
      stored_bytes: this.#storedBytes,
      ranges: isListed ? plan.ranges : null,
      chunks,
    };
  }
}

async function copyInto(
  store: BackupStore,
  lock: StoreLock,
  host: HostIdentity,
  snapshot: TakenSnapshot,
  options: ExportOptions,
): Promise<Manifest> {
  const { client, wanted, open = openImage } = options;
  if (snapshot.capacityBytes > CAPACITY_MAX_BYTES) {
    const why = `${snapshot.device} is larger than 16 TiB, which a manifest can name`;
    throw new BackupError("DEVICE_TOO_LARGE", why, { hint: "Export it with --raw" });
  }
  const points = await store.points(({ why }) => options.onNote?.(`${why}; it is skipped`));
  const otherMachine = otherMachineNote(points, host, snapshot.device);
  if (otherMachine !== undefined && wanted.kind !== "full") options.onNote?.(otherMachine);
  const ofHost = points.filter((point) => isSameHost(point, host));
  const states = ofHost.filter((point) => point.device === snapshot.device);
  const plan = await planExport(client, wanted, states, host, snapshot);
  const same = states.find(
    ({ generation_id, changes_number, taken_at }) =>
      generation_id === snapshot.generationId &&
      changes_number === snapshot.changesNumber &&
      taken_at === snapshot.takenAt,
  );
  if (same !== undefined && wanted.kind === "auto") {
    options.onNote?.(`snapshot ${snapshot.id} is already in the store: nothing was exported`);
    return same;
  }
  const image = await open(snapshot.image, snapshot.exported);
  const pool = new ChunkPool();
  try {
    return await new StoreExport(store, pool, image, snapshot, options).run(plan, host, lock);
  } finally {
    await Promise.all([image.close(), pool.close()]);
  }
}

/**
 * Exports the device as a new point. If there is already a point of the same snapshot, returns that.
 * @throws BackupError BACKUP_BUSY, BACKUP_CHAIN_BROKEN, TARGET_FULL, ...
 */
export async function exportToStore(store: BackupStore, options: ExportOptions): Promise<Manifest> {
  const { client, device } = options;
  const host = hostOf(options);
  const { device: original } = await client.snapshotInfo(device);
  const lock = await store.lockChain(host, original);
  try {
    const own = { ...options, ownSnapshot: store.ownSnapshot(host, original) };
    return await withSnapshot(own, (snapshot) => copyInto(store, lock, host, snapshot, options));
  } finally {
    await lock.release();
  }
}
