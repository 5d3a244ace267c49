/** Hashing and compression on separate threads. Callers bound what is in flight. */
import { availableParallelism } from "node:os";
import { type ChunkThread, endThread, THREADS_MAX, takeThread } from "./chunk-thread.js";
import { BackupError } from "./errors.js";
import { ownBuffers } from "./own-buffers.js";
import type { PartsAnswer, PartsRequest } from "./part-writes.js";
import type { BlockWindow } from "./sums.js";
import type { ChunkAnswer } from "./worker.js";
import { storedPieces } from "./zstd-frame.js";

/** Content of a decompressed chunk. */
export interface Digest {
  readonly data: Uint8Array<ArrayBuffer>;
  /** SHA-256 in hexadecimal; null for a chunk of zeros. */
  readonly hash: string | null;
}

export interface Summed {
  readonly data: Uint8Array<ArrayBuffer>;
  /** Sums of the blocks in the window; null if all of it is zeros. */
  readonly sums: Uint32Array | null;
}

export interface Packed {
  readonly data: Uint8Array<ArrayBuffer>;
  /** The frame, in pieces: of what is hardly compressible, parts of `data`. */
  readonly packed: readonly Uint8Array[];
  readonly packedHash: string | undefined;
}

export class ChunkPool {
  readonly #threads: ChunkThread[] = [];
  readonly #most: number;
  #isClosed = false;

  constructor(threads: number = Math.min(THREADS_MAX, availableParallelism())) {
    this.#most = threads;
  }

  get threads(): number {
    return this.#most;
  }

  /** Number of chunks in flight that keep all threads and a disk busy. */
  get depth(): number {
    return this.#most + 4;
  }

  /** `data` is detached; the result contains it again. */
  async digest(data: Uint8Array<ArrayBuffer>): Promise<Digest> {
    const answer = await this.#idlest().ask({ kind: "digest", data }, [data.buffer]);
    return { data: answer.data!, hash: answer.hash! };
  }

  /** `data` is detached; the result contains it again. */
  async sums(data: Uint8Array<ArrayBuffer>, window: BlockWindow): Promise<Summed> {
    const answer = await this.#idlest().ask({ kind: "sums", data, window }, [data.buffer]);
    return { data: answer.data!, sums: answer.sums! };
  }

  /**
   * Sums parts, and writes them if requested. Their memory must not change meanwhile.
   * @throws Error of a write, with its errno's name as `code`
   */
  async parts(request: PartsRequest): Promise<PartsAnswer> {
    const answer = (await this.#idlest().ask(request, [])).parts!;
    const { failure } = answer;
    if (failure === undefined) return answer;
    throw Object.assign(new Error(failure.message), { code: failure.code });
  }

  /**
   * Compresses a chunk with zstd; `data` is detached, and the result contains it again.
   * @param isHashed also hash the compressed data
   */
  async pack(data: Uint8Array<ArrayBuffer>, isHashed = false): Promise<Packed> {
    const answer = await this.#idlest().ask({ kind: "pack", data, isHashed }, [data.buffer]);
    const again = answer.data!;
    const packed = answer.packed === undefined ? storedPieces(again) : [answer.packed];
    return { data: again, packed, packedHash: answer.packedHash };
  }

  /** Decompresses and checks a chunk; returns its content, or why it is unusable. `packed` is detached. */
  async unpack(packed: Uint8Array, lengthBytes: number): Promise<ChunkAnswer> {
    const request = { kind: "unpack", data: packed, lengthBytes } as const;
    return await this.#idlest().ask(request, ownBuffers(packed));
  }

  /** What has not been answered fails. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(this.#threads.splice(0).map(endThread));
  }

  /** Starts another thread if all are busy: a small copy needs one, and each takes a while to start. */
  #idlest(): ChunkThread {
    if (this.#isClosed) throw new BackupError("INTERNAL", "the threads for chunks have ended");
    const idlest = this.#threads.reduce<ChunkThread | undefined>(
      (best, thread) => (best === undefined || thread.load < best.load ? thread : best),
      undefined,
    );
    const isBusy = idlest === undefined || idlest.load > 0;
    if (!isBusy || this.#threads.length === this.#most) return idlest!;
    const thread = takeThread();
    this.#threads.push(thread);
    return thread;
  }
}
