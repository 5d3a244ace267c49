/** Reads and checks chunks of a point. */
import type { ChunkPool } from "./chunk-pool.js";
import { CHUNK_BYTES, chunkLength } from "./chunks.js";
import { BackupError } from "./errors.js";
import type { Manifest } from "./manifest.js";
import type { BackupStore } from "./store.js";

export interface StoredPoint {
  readonly store: BackupStore;
  readonly point: Manifest;
}

/** @throws BackupError BACKUP_DAMAGED; BACKUP_NOT_FOUND if the point was removed meanwhile */
export async function pointChunk(
  { store, point }: StoredPoint,
  index: number,
  pool: ChunkPool,
): Promise<Uint8Array> {
  const lengthBytes = chunkLength(index, point.capacity_bytes);
  const hash = point.chunks[index]!;
  if (hash === null) return new Uint8Array(lengthBytes);
  const found = await store.readChunk(hash, lengthBytes, pool);
  if (found.state === "whole") return found.data;
  if (found.state === "missing" && (await store.stillThere([point])).length === 0) {
    const why = `point ${point.id} of ${point.device} was removed in the meantime`;
    const hint = "A prune and a gc have done that: restore another point";
    throw new BackupError("BACKUP_NOT_FOUND", why, { hint });
  }
  const where = `bytes ${index * CHUNK_BYTES} to ${index * CHUNK_BYTES + lengthBytes}`;
  const why = `${found.why}, which point ${point.id} has at ${where} of ${point.device}`;
  throw new BackupError("BACKUP_DAMAGED", why);
}
