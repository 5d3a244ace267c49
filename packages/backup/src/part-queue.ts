/** Distributes parts to threads: while all are busy, new parts are batched into the next message. */
import type { ChunkPool } from "./chunk-pool.js";
import { CHUNK_BYTES } from "./chunks.js";
import type { Slot } from "./part-memory.js";
import { canBeDirect, type PartFiles } from "./part-writes.js";
import type { BlockWindow } from "./sums.js";

/** The target of the threads. */
export interface WrittenFile {
  readonly files: PartFiles;
  /** So many bytes went through the page cache. @throws an error that fails the parts */
  wrote(cachedBytes: number): void;
}

interface Waiting {
  readonly slot: Slot;
  readonly offsetBytes: number;
  readonly window: BlockWindow;
  readonly done: (sums: Uint32Array | null) => void;
  readonly fail: (error: unknown) => void;
}

export class PartQueue {
  readonly #pool: ChunkPool;
  readonly #file: WrittenFile | undefined;
  readonly #waiting: Waiting[] = [];
  #busy = 0;
  #isDue = false;

  /** @param file undefined: threads only sum */
  constructor(pool: ChunkPool, file: WrittenFile | undefined) {
    this.#pool = pool;
    this.#file = file;
  }

  /**
   * Sums a part, and writes it unless it is zeros. Returns its sums: null for zeros. @throws Error with the errno's
   * name
   */
  put(slot: Slot, offsetBytes: number, window: BlockWindow): Promise<Uint32Array | null> {
    return new Promise((done, fail) => {
      this.#waiting.push({ slot, offsetBytes, window, done, fail });
      if (this.#isDue) return;
      this.#isDue = true;
      // First take what else has arrived.
      setImmediate(() => {
        this.#isDue = false;
        this.#send();
      });
    });
  }

  #send(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#busy >= this.#threadsFor(first)) return;
      this.#busy++;
      void this.#run(this.#batch());
    }
  }

  /** The kernel serialises writes of a file through the page cache, and waiting threads would spin. */
  #threadsFor({ slot, offsetBytes }: Waiting): number {
    const files = this.#file?.files;
    const isDirect = files?.directFd !== undefined && canBeDirect(slot, offsetBytes);
    return files === undefined || isDirect ? this.#pool.threads : 1;
  }

  /** The next parts in one memory, up to a chunk in total. */
  #batch(): Waiting[] {
    const memory = this.#waiting[0]!.slot.buffer;
    let bytes = 0;
    const end = this.#waiting.findIndex(({ slot }) => {
      bytes += slot.length;
      return bytes > CHUNK_BYTES || slot.buffer !== memory;
    });
    return this.#waiting.splice(0, end === -1 ? this.#waiting.length : end);
  }

  async #run(batch: readonly Waiting[]): Promise<void> {
    try {
      const parts = batch.map(({ slot, offsetBytes, window }) => {
        return { startBytes: slot.byteOffset, lengthBytes: slot.length, offsetBytes, window };
      });
      const { buffer: memory } = batch[0]!.slot;
      const files = this.#file?.files;
      const { sums, cachedBytes } = await this.#pool.parts({ kind: "parts", memory, parts, files });
      this.#file?.wrote(cachedBytes);
      for (const [index, { done }] of batch.entries()) done(sums[index]!);
    } catch (error) {
      for (const { fail } of batch) fail(error);
    } finally {
      this.#busy--;
      this.#send();
    }
  }
}
