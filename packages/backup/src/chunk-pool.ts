/** Hashing and compression on separate threads. Callers bound what is in flight. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { BackupError } from "./errors.js";
import { ownBuffers } from "./own-buffers.js";
import type { PartsAnswer, PartsRequest } from "./part-writes.js";
import type { BlockWindow } from "./sums.js";
import type { ChunkAnswer, ChunkRequest } from "./worker.js";

const THREADS_MAX = 8;

interface Waiting {
  readonly done: (answer: ChunkAnswer) => void;
  readonly fail: (error: Error) => void;
}

class ChunkThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 0;
  #end: Error | undefined;

  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url));
    this.#worker.on("message", ({ id, answer }: { id: number; answer: ChunkAnswer }) => {
      this.#waiting.get(id)?.done(answer);
      this.#waiting.delete(id);
    });
    this.#worker.on("error", (error) => this.#fail(error));
    this.#worker.on("exit", () => this.#fail(new Error("it has ended")));
  }

  get load(): number {
    return this.#waiting.size;
  }

  ask(request: ChunkRequest, transfer: readonly ArrayBuffer[]): Promise<ChunkAnswer> {
    return new Promise((done, fail) => {
      if (this.#end !== undefined) return fail(this.#end);
      const id = this.#nextId++;
      this.#waiting.set(id, { done, fail });
      this.#worker.postMessage({ id, request }, transfer);
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(cause: Error): void {
    this.#end ??= new BackupError("INTERNAL", `a thread for chunks failed: ${cause.message}`, {
      cause,
    });
    for (const { fail } of this.#waiting.values()) fail(this.#end);
    this.#waiting.clear();
  }
}

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
  readonly packed: Uint8Array;
  readonly packedHash: string | undefined;
}

export class ChunkPool {
  readonly #threads: ChunkThread[] = [];
  readonly #most: number;

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
    return { data: answer.data!, packed: answer.packed!, packedHash: answer.packedHash };
  }

  /** Decompresses and checks a chunk; returns its content, or why it is unusable. `packed` is detached. */
  unpack(packed: Uint8Array, lengthBytes: number): Promise<ChunkAnswer> {
    const request = { kind: "unpack", data: packed, lengthBytes } as const;
    return this.#idlest().ask(request, ownBuffers(packed));
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /** Starts another thread if all are busy: a small copy needs one, and each takes a while to start. */
  #idlest(): ChunkThread {
    const idlest = this.#threads.reduce<ChunkThread | undefined>(
      (best, thread) => (best === undefined || thread.load < best.load ? thread : best),
      undefined,
    );
    const isBusy = idlest === undefined || idlest.load > 0;
    if (!isBusy || this.#threads.length === this.#most) return idlest!;
    const thread = new ChunkThread();
    this.#threads.push(thread);
    return thread;
  }
}
