/**
 * Serves a point in time over NBD without restoring it: a separate thread answers clients, and requests each chunk
 * that they read from this one, which checks it as in a restore.
 */
import { closeSync, lstatSync, rmSync, type Stats } from "node:fs";
import { messageOf } from "@blksnap/errors";
import { nbdUri } from "@blksnap/nbd";
import { listenLocal, ReactorThread } from "@blksnap/uring";
import { ChunkPool } from "./chunk-pool.js";
import { CHUNK_BYTES } from "./chunks.js";
import { BackupError } from "./errors.js";
import { hostText } from "./host.js";
import { pointChunk, type StoredPoint } from "./point-chunk.js";
import { PLACES } from "./point-target.js";
import type { FromPointWorker, PointWorkerOptions, ToPointWorker } from "./point-worker.js";

/** The default of servers. */
const CONNECTIONS_MAX = 64;
const SOCKET_MODE = 0o600;
const SECTOR_BYTES = 512;

export interface PointServerOptions extends StoredPoint {
  /** Socket for clients of this user; the path must not exist yet. */
  readonly socketPath: string;
  /** Called for unreadable chunks: clients that read them get EIO. */
  readonly onNote?: ((text: string) => void) | undefined;
}

function fileAt(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function listenAt(path: string): number {
  try {
    return listenLocal(path, SOCKET_MODE);
  } catch (error) {
    const isThere = fileAt(path) !== undefined;
    const why = `can't listen at ${path}: ${isThere ? "a file exists there" : messageOf(error)}`;
    const hint = isThere
      ? "Name another path; remove what an ended program has left there"
      : "Name a path of at most 107 bytes, in an existing folder to which you may write";
    throw new BackupError(isThere ? "TARGET_EXISTS" : "TARGET_FAILED", why, { hint, cause: error });
  }
}

export class PointServer {
  /** URI for nbdinfo, nbdcopy, qemu-img and so on. */
  readonly uri: string;
  /** Resolves when the server ends. @throws BackupError INTERNAL if its thread failed */
  readonly ended: Promise<void>;
  readonly #options: PointServerOptions;
  readonly #descriptors: Int32Array;
  readonly #socket: Stats | undefined;
  readonly #cache = new Uint8Array(new SharedArrayBuffer(PLACES * CHUNK_BYTES));
  readonly #pool = new ChunkPool();
  readonly #thread: ReactorThread;
  #isEnded = false;
  #stopping: Promise<void> | undefined;

  private constructor(options: PointServerOptions, onServing: () => void) {
    const { point, socketPath } = options;
    const { id, device, taken_at, capacity_bytes: capacityBytes } = point;
    this.#options = options;
    this.uri = nbdUri(socketPath, id);
    this.#descriptors = new Int32Array(new SharedArrayBuffer((1 + CONNECTIONS_MAX) * 4)).fill(-1);
    this.#descriptors[0] = listenAt(socketPath);
    this.#socket = fileAt(socketPath);
    const given: PointWorkerOptions = {
      ...{ descriptors: this.#descriptors, cache: this.#cache, capacityBytes, name: id },
      description: `${device} of ${hostText(point)}, ${taken_at}`,
      isZeros: Uint8Array.from(point.chunks, (hash) => (hash === null ? 1 : 0)),
    };
    let end: (error: Error | undefined) => void = () => undefined;
    this.ended = new Promise((resolve, reject) => {
      end = (error) => (error === undefined ? resolve() : reject(error));
    });
    this.ended.catch(() => undefined);
    const onMessage = (message: unknown): void => {
      const received = message as FromPointWorker;
      if (received.type === "serving") onServing();
      else if (received.type === "want") void this.#load(received.place, received.chunk);
      else options.onNote?.(received.message);
    };
    const onExit = (cause: Error | undefined): void => {
      this.#isEnded = true;
      // Lets clients see the end.
      for (const fd of this.#descriptors) if (fd >= 0) closeSync(fd);
      this.#descriptors.fill(-1);
      this.#removeSocket();
      const why = `the server at ${socketPath} has ended: ${cause?.message}`;
      end(cause && new BackupError("INTERNAL", why, { cause }));
    };
    const module = new URL("./point-worker.js", import.meta.url);
    try {
      this.#thread = new ReactorThread(module, given, onMessage, onExit);
    } catch (error) {
      onExit(error as Error);
      throw new BackupError("INTERNAL", `cannot serve at ${socketPath}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** Starts to serve. @throws BackupError TARGET_EXISTS, TARGET_FAILED, BACKUP_DAMAGED, INTERNAL */
  static async start(options: PointServerOptions): Promise<PointServer> {
    const { id, capacity_bytes } = options.point;
    if (capacity_bytes % SECTOR_BYTES !== 0) {
      const why = `point ${id} has ${capacity_bytes} bytes, which are not whole sectors`;
      throw new BackupError("BACKUP_DAMAGED", why);
    }
    let onServing: () => void = () => undefined;
    const serving = new Promise<void>((resolve) => {
      onServing = resolve;
    });
    const server = new PointServer(options, () => onServing());
    await Promise.race([serving, server.ended]);
    return server;
  }

  /** Ends it with its connections. A second call does nothing. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    this.#removeSocket();
    if (!this.#isEnded) await this.#thread.stop({ type: "stop" } satisfies ToPointWorker);
    await this.#pool.close();
  }

  get #isServing(): boolean {
    return !this.#isEnded && this.#stopping === undefined;
  }

  /** Removes the socket, unless it is gone or another program's. */
  #removeSocket(): void {
    const { socketPath } = this.#options;
    const found = fileAt(socketPath);
    if (found?.ino === this.#socket?.ino && found?.dev === this.#socket?.dev) {
      rmSync(socketPath, { force: true });
    }
  }

  async #load(place: number, chunk: number): Promise<void> {
    let isGood = false;
    try {
      const data = await pointChunk(this.#options, chunk, this.#pool);
      this.#cache.set(data, place * CHUNK_BYTES);
      isGood = true;
    } catch (error) {
      if (this.#isServing) this.#options.onNote?.(messageOf(error));
    }
    if (!this.#isServing) return;
    this.#thread.post({ type: "loaded", place, isGood } satisfies ToPointWorker);
  }
}
