/**
 * A folder, or a bucket of an object store, with the points in time of any devices of any hosts.
 *
 * ```
 *   blksnap-backup.json     what the folder is, and its version points/TIME-ID.json     a manifest for each point,
 *   written after all its chunks chunks/ab/ab12….zst     the content of a chunk, compressed with zstd, by its
 *   SHA-256: `zstd -d` reads it tmp/                    files in progress, in a folder locks/                  the
 *   writers
 * ```
 *
 * Nothing is ever changed in place. A kill at any moment leaves all points whole; the next export reuses chunks that
 * were written by then, or gc removes them.
 */
import { createHash } from "node:crypto";
import type { ErrorName } from "@blksnap/api";
import { errnoNameOf } from "@blksnap/errors";
import type { ChunkPool } from "./chunk-pool.js";
import { BackupError } from "./errors.js";
import { type Content, type Files, realFiles } from "./files.js";
import { FolderObjects } from "./folder-objects.js";
import type { HostIdentity } from "./host.js";
import { inFlight, inOrder } from "./in-flight.js";
import { looksLikeManifest, type Manifest, manifestText, parseManifest } from "./manifest.js";
import type { Objects } from "./objects.js";
import { type Remembered, rememberedInStore } from "./remembered.js";
import { StoreLock } from "./store-lock.js";

const MARK = "blksnap-backup.json";
const MARK_TEXT = `${JSON.stringify({ format: "blksnap-backup-store", version: 1 })}\n`;
const CLEANING = "cleaning";
const POINTS = "points/";
const POINT = /^[0-9TZ]+-[0-9a-f-]{36}\.json$/;
/** Files that may be manifests under other names. */
const OTHER_POINT = /\.json/;
/** Errors of read(2) that concern one file. Others, as of a network, concern the whole store. */
const MEDIUM_ERRORS: readonly string[] = ["EIO", "EUCLEAN", "EBADMSG"];
const CHUNK = /\/([0-9a-f]{64})\.zst$/;

/** The state of a chunk in the store. */
export type StoredChunk =
  | { readonly state: "whole"; readonly data: Uint8Array<ArrayBuffer> }
  | { readonly state: "missing" | "damaged"; readonly why: string };

/** A manifest that is not a point: it is unreadable, or its file does not have the name that it states. */
export interface DamagedPoint {
  readonly path: string;
  /** From the file's name, to the second, if it is unreadable; empty if that has none. */
  readonly takenAt: string;
  readonly why: string;
  readonly code: ErrorName;
  /** Its content, if only the file's name is wrong; otherwise its device and chunks are unknown. */
  readonly misnamed?: Manifest | undefined;
}

export class BackupStore {
  /** Of the folder, or `s3://BUCKET/PREFIX`. */
  readonly path: string;
  readonly #objects: Objects;

  private constructor(objects: Objects) {
    this.path = objects.path;
    this.#objects = objects;
  }

  /**
   * @param place a folder, or the result of `openS3`
   * @throws BackupError BACKUP_NOT_FOUND, BACKUP_VERSION
   */
  static async open(place: string | Objects, files: Files = realFiles): Promise<BackupStore> {
    const objects = objectsAt(place, files);
    if (typeof place === "string" && (await files.look(place))?.isFolder === false) {
      const hint = "What export --raw has written is the device's content: copy it back with dd";
      throw new BackupError("BACKUP_NOT_FOUND", `${objects.path} is not a folder of backups`, {
        hint,
      });
    }
    const mark = await objects.get(MARK);
    if (mark === undefined) {
      const hint = "Give the place that export has written to";
      throw new BackupError("BACKUP_NOT_FOUND", `${objects.path} holds no backups`, { hint });
    }
    if (mark.toString() !== MARK_TEXT) {
      throw new BackupError("BACKUP_VERSION", `${objects.pathOf(MARK)} is of another version`);
    }
    return new BackupStore(objects);
  }

  /**
   * Opens a store, or creates one in an empty or missing place.
   * @throws BackupError TARGET_EXISTS, BACKUP_VERSION
   */
  static async openOrCreate(
    place: string | Objects,
    files: Files = realFiles,
  ): Promise<BackupStore> {
    const objects = objectsAt(place, files);
    if ((await objects.get(MARK)) === undefined) {
      for await (const { key } of objects.list("")) {
        // Left by an earlier attempt, or created by another export.
        if (key === MARK || key.startsWith(`tmp/${MARK}`)) continue;
        // Another export has created it meanwhile, and has begun.
        if ((await objects.get(MARK)) !== undefined) break;
        const why = `${objects.path} is not empty, and holds no backups (${key})`;
        throw new BackupError("TARGET_EXISTS", why, { hint: "Name a place that is empty or new" });
      }
      await objects.put(MARK, Buffer.from(MARK_TEXT));
      await objects.sync([MARK]);
    }
    return BackupStore.open(objects);
  }

  /** How many chunks to keep in flight. */
  depthWith(pool: ChunkPool): number {
    return Math.max(pool.depth, this.#objects.depth);
  }

  /** Whether put() needs the SHA-256 of compressed chunks. */
  get isHashed(): boolean {
    return this.#objects.isHashed;
  }

  /**
   * All points, the oldest first.
   * @param onDamage called with each manifest that is not a point; the others are returned. Without it, such a
   *   manifest is an error.
   * @param isAlone a prune or gc has the store for itself: a listed but missing manifest was not removed meanwhile
   * @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION
   */
  async points(
    onDamage?: (damage: DamagedPoint) => void,
    isAlone: boolean = onDamage === undefined,
  ): Promise<readonly Manifest[]> {
    const found: Manifest[] = [];
    // Points share most hashes: keep one string of each.
    const hashes = new Map<string, string>();
    const names: string[] = [];
    for await (const { key } of this.#objects.list(POINTS)) {
      const name = key.slice(POINTS.length);
      if (OTHER_POINT.test(name)) names.push(name);
    }
    const read = async (name: string) => ({ name, text: await this.#manifestText(name) });
    await inOrder(names, this.#objects.depth, read, async ({ name, text }) => {
      const path = this.#objects.pathOf(POINTS + name);
      let misnamed: Manifest | undefined;
      try {
        if (text instanceof BackupError) throw text;
        if (text === undefined) {
          if (!isAlone) return;
          throw new BackupError("BACKUP_DAMAGED", `${path} is listed, and cannot be read`);
        }
        if (!POINT.test(name) && !looksLikeManifest(text)) return;
        const manifest = withShared(parseManifest(text, path), hashes);
        // Removal uses the stated name, so it must match the file: others may write the store, too.
        if (nameOf(manifest) === name) found.push(manifest);
        else {
          misnamed = manifest;
          throw wrongName(path, manifest);
        }
      } catch (error) {
        if (onDamage === undefined || !(error instanceof BackupError)) throw error;
        const { message: why, code } = error;
        onDamage({ path, takenAt: misnamed?.taken_at ?? timeOf(name), why, code, misnamed });
      }
    });
    return found.sort((one, other) => (one.taken_at < other.taken_at ? -1 : 1));
  }

  /** Undefined if it is missing; an error if the medium cannot read it, which does not affect others. */
  async #manifestText(name: string): Promise<string | BackupError | undefined> {
    const path = this.#objects.pathOf(POINTS + name);
    const found = await this.#getOrFault(POINTS + name);
    if (!(found instanceof Error)) return found?.toString();
    const why = `the manifest ${path} is damaged: ${found.message}`;
    return new BackupError("BACKUP_DAMAGED", why, { cause: found });
  }

  /** Like get(), but returns an error of the medium. */
  #getOrFault(key: string): Promise<Buffer | Error | undefined> {
    return this.#objects.get(key).catch((error: unknown) => {
      const { cause } = error as Error;
      // An error without an errno, as of an object store, is not one of the medium.
      const isFault = cause !== undefined && MEDIUM_ERRORS.includes(errnoNameOf(cause));
      if (isFault) return error as Error;
      throw error;
    });
  }

  /** For an export of a device. @throws BackupError BACKUP_BUSY */
  lockChain(host: HostIdentity, device: string): Promise<StoreLock> {
    const earlier = earlierName(host, device);
    const excludes = (other: string): boolean => other === CLEANING || other === earlier;
    const what = `an export of ${device}`;
    return StoreLock.acquire(this.#objects, chainName(host, device), what, excludes);
  }

  /** Stores the id of an export's snapshot while that exists. */
  ownSnapshot(host: HostIdentity, device: string): Remembered {
    const [own, earlier] = [chainName(host, device), earlierName(host, device)].map((name) =>
      rememberedInStore(this.#objects, `locks/${name}.snapshot`),
    ) as [Remembered, Remembered];
    return {
      get: async () => (await own.get()) ?? (await earlier.get()),
      set: own.set,
      clear: async () => {
        await own.clear();
        await earlier.clear();
      },
    };
  }

  /** For operations that remove chunks: nothing else writes meanwhile. @throws BackupError BACKUP_BUSY */
  lockAll(what: string): Promise<StoreLock> {
    return StoreLock.acquire(this.#objects, CLEANING, what, () => true);
  }

  async hasChunk(hash: string): Promise<boolean> {
    return ((await this.#objects.look(chunkKey(hash)))?.sizeBytes ?? 0) > 0;
  }

  /**
   * It is durable after syncChunks().
   * @param packedHash SHA-256 of `packed`, in hexadecimal
   */
  addChunk(hash: string, packed: Content, packedHash?: string): Promise<void> {
    return this.#objects.put(chunkKey(hash), packed, packedHash);
  }

  /** Makes these chunks durable, even if another process has written them. */
  syncChunks(hashes: Iterable<string>): Promise<void> {
    return this.#objects.sync([...hashes].map(chunkKey));
  }

  /** Reads and checks a chunk. */
  async readChunk(hash: string, lengthBytes: number, pool: ChunkPool): Promise<StoredChunk> {
    const path = this.#objects.pathOf(chunkKey(hash));
    const packed = await this.#getOrFault(chunkKey(hash));
    if (packed instanceof Error) return { state: "damaged", why: packed.message };
    if (packed === undefined) return { state: "missing", why: `${path} is missing` };
    const { data, hash: found, fault } = await pool.unpack(packed, lengthBytes);
    if (fault !== undefined) return { state: "damaged", why: `${path} is damaged: ${fault}` };
    if (found === hash) return { state: "whole", data: data! };
    return { state: "damaged", why: `${path} is damaged: its SHA-256 is ${found ?? "of zeros"}` };
  }

  /** Publishes a complete point. Its chunks must be durable. */
  async publish(manifest: Manifest): Promise<void> {
    const key = POINTS + nameOf(manifest);
    await this.#objects.put(key, Buffer.from(manifestText(manifest)));
    await this.#objects.sync([key]);
  }

  async removePoint(manifest: Manifest): Promise<void> {
    const key = POINTS + nameOf(manifest);
    await this.#objects.remove(key);
    await this.#objects.sync([key]);
  }

  /** Those of some points that still exist: a prune may run. Trusts a list, but no single 404. */
  async stillThere(points: readonly Manifest[]): Promise<readonly Manifest[]> {
    const keys = new Set<string>();
    for await (const { key } of this.#objects.list(POINTS)) keys.add(key);
    return points.filter((point) => keys.has(POINTS + nameOf(point)));
  }

  /** Makes the present points, and no others, survive a power cut: removals may not be durable yet. */
  syncPoints(): Promise<void> {
    return this.#objects.sync([POINTS + MARK]);
  }

  /** Hashes of all existing chunks, with their compressed lengths. */
  async *chunks(): AsyncGenerator<{ readonly hash: string; readonly packedBytes: number }> {
    for await (const { key, sizeBytes } of this.#objects.list("chunks/")) {
      const hash = CHUNK.exec(key)?.[1];
      if (hash !== undefined && key === chunkKey(hash)) yield { hash, packedBytes: sizeBytes };
    }
  }

  /** Removes all of these, many at a time. */
  async removeChunks(hashes: AsyncIterable<string>): Promise<void> {
    await inFlight(hashes, this.#objects.depth, (hash) => this.#objects.remove(chunkKey(hash)));
  }

  /** Removes incomplete writes of killed exports; call it only while nothing else writes. */
  removeUnfinished(): Promise<void> {
    return this.#objects.removeUnfinished();
  }
}

function objectsAt(place: string | Objects, files: Files): Objects {
  return typeof place === "string" ? new FolderObjects(place, files) : place;
}

function chunkKey(hash: string): string {
  return `chunks/${hash.slice(0, 2)}/${hash}.zst`;
}

/** The manifest with equal strings of its own replaced by those of `hashes`. */
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

function wrongName(path: string, manifest: Manifest): BackupError {
  const { id, taken_at } = manifest;
  const why = `the manifest ${path} is of point ${id} of ${taken_at}, whose file is ${nameOf(manifest)}`;
  return new BackupError("BACKUP_DAMAGED", why);
}

function chainName({ host, machine_id = "" }: HostIdentity, device: string): string {
  return nameHash(`${host}\n${device}\n${machine_id}`);
}

/** Locks of programs that know hosts by name only: of killed ones, and of one that runs meanwhile. */
function earlierName({ host }: HostIdentity, device: string): string {
  return nameHash(`${host}\n${device}`);
}

function nameHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

function nameOf({ taken_at, id }: Manifest): string {
  return `${taken_at.replace(/[-:]|\.\d+/g, "")}-${id}.json`;
}
