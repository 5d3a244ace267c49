/**
 * A folder with the points in time of any devices of any hosts.
 *
 * ```
 *   blksnap-backup.json     what the folder is, and its version
 *   points/TIME-ID.json     a manifest for each point, written when all its chunks are on the medium
 *   chunks/ab/ab12….zst     the content of a chunk, packed with zstd, by its SHA-256: `zstd -d` reads it
 *   tmp/                    what is being written
 *   locks/                  who writes
 * ```
 *
 * Nothing is ever changed in place. A kill at any moment leaves all points whole; chunks that were written by
 * then are found again by the next export, or removed by gc.
 */
import { createHash, randomUUID } from "node:crypto";
import { join } from "node:path";
import type { ChunkPool } from "./chunk-pool.js";
import { BackupError } from "./errors.js";
import { type Files, realFiles } from "./files.js";
import { StoreLock } from "./lock.js";
import { type Manifest, manifestText, parseManifest } from "./manifest.js";

const MARK = "blksnap-backup.json";
const MARK_TEXT = `${JSON.stringify({ format: "blksnap-backup-store", version: 1 })}\n`;
const CLEANING = "cleaning";
const POINT = /^[0-9TZ]+-[0-9a-f-]{36}\.json$/;
const CHUNK = /^([0-9a-f]{64})\.zst$/;

/** What a chunk in the store turned out to be. */
export type StoredChunk =
  | { readonly state: "whole"; readonly data: Uint8Array<ArrayBuffer> }
  | { readonly state: "missing" | "damaged"; readonly why: string };

/** A manifest that cannot be read: nobody knows of which device. */
export interface DamagedPoint {
  readonly path: string;
  /** As its file's name has it, to the second; empty where that has none. */
  readonly takenAt: string;
  readonly why: string;
}

export class BackupStore {
  readonly path: string;
  readonly #files: Files;

  private constructor(path: string, files: Files) {
    this.path = path;
    this.#files = files;
  }

  /** @throws BackupError BACKUP_NOT_FOUND, BACKUP_VERSION */
  static async open(path: string, files: Files = realFiles): Promise<BackupStore> {
    const mark = await files.read(join(path, MARK));
    if (mark === undefined) {
      const hint = "Give the folder that export has written to";
      throw new BackupError("BACKUP_NOT_FOUND", `${path} holds no backups`, { hint });
    }
    if (mark.toString() !== MARK_TEXT) {
      throw new BackupError("BACKUP_VERSION", `${join(path, MARK)} is of another version`);
    }
    return new BackupStore(path, files);
  }

  /** Opens a store, or makes one in a folder that is empty or missing. */
  static async openOrCreate(path: string, files: Files = realFiles): Promise<BackupStore> {
    if ((await files.read(join(path, MARK))) !== undefined) return BackupStore.open(path, files);
    await files.makeFolder(path);
    // What an earlier attempt has left may be there.
    const strange = (await files.list(path)).filter((name) => !name.startsWith(`.${MARK}`));
    if (strange.length > 0) {
      const why = `${path} is not empty, and holds no backups (${strange[0]})`;
      throw new BackupError("TARGET_EXISTS", why, { hint: "Name a folder that is empty or new" });
    }
    const own = join(path, `.${MARK}-${randomUUID()}`);
    await files.create(own, Buffer.from(MARK_TEXT));
    await files.rename(own, join(path, MARK));
    await files.syncFolder(path);
    return BackupStore.open(path, files);
  }

  /**
   * All points, the oldest first.
   * @param onDamage is told of each manifest that cannot be read, and the others are answered. Without it that fails.
   * @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION
   */
  async points(onDamage?: (damage: DamagedPoint) => void): Promise<readonly Manifest[]> {
    const found: Manifest[] = [];
    // Points have most hashes in common: of each there is one string.
    const hashes = new Map<string, string>();
    for (const name of await this.#files.list(join(this.path, "points"))) {
      if (!POINT.test(name)) continue;
      const path = join(this.path, "points", name);
      try {
        const text = await this.#files.read(path);
        // A prune may be under way.
        if (text === undefined) continue;
        found.push(withShared(parseManifest(text.toString(), path), hashes));
      } catch (error) {
        if (onDamage === undefined || !(error instanceof BackupError)) throw error;
        onDamage({ path, takenAt: timeOf(name), why: error.message });
      }
    }
    return found.sort((one, other) => (one.taken_at < other.taken_at ? -1 : 1));
  }

  /** For an export of a device. @throws BackupError BACKUP_BUSY */
  async lockChain(host: string, device: string): Promise<StoreLock> {
    const name = chainName(host, device);
    const folder = join(this.path, "locks");
    await this.#files.makeFolder(folder);
    const isCleaning = (other: string): boolean => other === CLEANING;
    return StoreLock.take(this.#files, folder, name, `an export of ${device}`, isCleaning);
  }

  /** Where the snapshot of an export is remembered while there is one. */
  ownSnapshot(host: string, device: string): { readonly path: string; readonly files: Files } {
    const name = `${chainName(host, device)}.snapshot`;
    return { path: join(this.path, "locks", name), files: this.#files };
  }

  /** For what removes: nothing else writes meanwhile. @throws BackupError BACKUP_BUSY */
  async lockAll(what: string): Promise<StoreLock> {
    const folder = join(this.path, "locks");
    await this.#files.makeFolder(folder);
    return StoreLock.take(this.#files, folder, CLEANING, what, () => true);
  }

  async hasChunk(hash: string): Promise<boolean> {
    return ((await this.#files.sizeBytes(this.#chunkPath(hash))) ?? 0) > 0;
  }

  /** Its name is on the medium after syncChunks(). */
  async addChunk(hash: string, packed: Uint8Array): Promise<void> {
    const own = join(this.path, "tmp", `${hash}-${randomUUID()}`);
    await this.#files.makeFolder(join(this.path, "tmp"));
    await this.#files.makeFolder(this.#folderOf(hash));
    try {
      await this.#files.create(own, packed);
      await this.#files.rename(own, this.#chunkPath(hash));
    } catch (error) {
      await this.#files.remove(own).catch(() => undefined);
      throw error;
    }
  }

  /** Has the names of these chunks be on the medium, whoever has written them. */
  async syncChunks(hashes: Iterable<string>): Promise<void> {
    const folders = new Set([...hashes].map((hash) => this.#folderOf(hash)));
    if (folders.size === 0) return;
    for (const folder of folders) await this.#files.syncFolder(folder);
    await this.#files.syncFolder(join(this.path, "chunks"));
    await this.#files.syncFolder(this.path);
  }

  /** Reads and checks a chunk. */
  async readChunk(hash: string, lengthBytes: number, pool: ChunkPool): Promise<StoredChunk> {
    const path = this.#chunkPath(hash);
    const packed = await this.#files.read(path);
    if (packed === undefined) return { state: "missing", why: `${path} is missing` };
    const { data, hash: found, fault } = await pool.unpack(packed, lengthBytes);
    if (fault !== undefined) return { state: "damaged", why: `${path} is damaged: ${fault}` };
    if (found === hash) return { state: "whole", data: data! };
    return { state: "damaged", why: `${path} is damaged: its SHA-256 is ${found ?? "of zeros"}` };
  }

  /** Makes a point appear, whole. Its chunks are on the medium. */
  async publish(manifest: Manifest): Promise<void> {
    const folder = join(this.path, "points");
    await this.#files.makeFolder(folder);
    await this.#files.makeFolder(join(this.path, "tmp"));
    const own = join(this.path, "tmp", `point-${randomUUID()}`);
    await this.#files.syncFolder(this.path);
    await this.#files.create(own, Buffer.from(manifestText(manifest)));
    await this.#files.rename(own, join(folder, nameOf(manifest)));
    await this.#files.syncFolder(folder);
  }

  async removePoint(manifest: Manifest): Promise<void> {
    const folder = join(this.path, "points");
    await this.#files.remove(join(folder, nameOf(manifest)));
    await this.#files.syncFolder(folder);
  }

  /** Has the points be on the medium that are there now, and no others: a removal may not be yet. */
  async syncPoints(): Promise<void> {
    const folder = join(this.path, "points");
    await this.#files.makeFolder(folder);
    await this.#files.syncFolder(folder);
  }

  /** Hashes of all chunks that are there, with their packed lengths. */
  async *chunks(): AsyncGenerator<{ readonly hash: string; readonly packedBytes: number }> {
    for (const prefix of await this.#files.list(join(this.path, "chunks"))) {
      for (const name of await this.#files.list(join(this.path, "chunks", prefix))) {
        const hash = CHUNK.exec(name)?.[1];
        if (hash === undefined || !hash.startsWith(prefix)) continue;
        const packedBytes = (await this.#files.sizeBytes(this.#chunkPath(hash))) ?? 0;
        yield { hash, packedBytes };
      }
    }
  }

  removeChunk(hash: string): Promise<void> {
    return this.#files.remove(this.#chunkPath(hash));
  }

  /** Removes what killed exports were writing; nothing else may write now. */
  async removeUnfinished(): Promise<void> {
    const folder = join(this.path, "tmp");
    for (const name of await this.#files.list(folder)) await this.#files.remove(join(folder, name));
  }

  #folderOf(hash: string): string {
    return join(this.path, "chunks", hash.slice(0, 2));
  }

  #chunkPath(hash: string): string {
    return join(this.#folderOf(hash), `${hash}.zst`);
  }
}

/** The manifest with the strings of `hashes` in place of equal ones of its own. */
function withShared(manifest: Manifest, hashes: Map<string, string>): Manifest {
  const chunks = manifest.chunks.map((hash) => {
    if (hash === null) return null;
    const known = hashes.get(hash);
    if (known !== undefined) return known;
    hashes.set(hash, hash);
    return hash;
  });
  return { ...manifest, chunks };
}

/** When the point of this file was taken, to the second. */
function timeOf(name: string): string {
  const parts = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/.exec(name);
  if (parts === null) return "";
  const [, year, month, day, hour, minute, second] = parts;
  return `${year}-${month}-${day}T${hour}:${minute}:${second}Z`;
}

function chainName(host: string, device: string): string {
  return createHash("sha256").update(`${host}\n${device}`).digest("hex").slice(0, 32);
}

function nameOf({ taken_at, id }: Manifest): string {
  return `${taken_at.replace(/[-:]|\.\d+/g, "")}-${id}.json`;
}
