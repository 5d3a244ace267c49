/**
 * Frees in the diff storage the chunks that an export has copied, or never reads, of the image of its own snapshot.
 * Later writes to these parts of the device copy nothing, and existing copies are freed. They cannot be read again:
 * after an early end the export must take another snapshot.
 */
import { messageOf } from "@blksnap/errors";
import { NbdClient } from "@blksnap/nbd";
import { CHUNK_BYTES, chunkCount } from "./chunks.js";
import type { SnapshotOptions, TakenSnapshot } from "./snapshot.js";

/**
 * On a larger device nothing is freed: the in-memory map of its diff area would get an entry for each chunk, 24 bytes
 * for 256 KiB.
 */
const CAPACITY_MAX_BYTES = 2 ** 38;
/** Most bytes of one trim, which occupies the device's thread. */
const TRIM_CHUNKS_MAX = 16;

/** How to free parts of the image. */
export interface ImageTrims {
  trim(offsetBytes: number, lengthBytes: number): Promise<void>;
  close(): Promise<void>;
}

export interface DoneChunksOptions extends Pick<SnapshotOptions, "onNote"> {
  /** Default: a separate connection. */
  readonly openTrims?: ((exported: string) => Promise<ImageTrims>) | undefined;
}

const NOTHING: DoneChunks = {
  done: () => undefined,
  end: () => Promise.resolve(0),
};

export interface DoneChunks {
  /** One part of the chunk is durable in the target, and is not read again. */
  done(offsetBytes: number): void;
  /** Frees no more. Returns an upper bound of the freed bytes. A second call does nothing. */
  readonly end: () => Promise<number>;
}

/**
 * @param parts all parts to be read, each within one chunk; done() is called once for each
 */
export function doneChunks(
  snapshot: TakenSnapshot,
  parts: Iterable<number>,
  { openTrims = NbdClient.connect, onNote }: DoneChunksOptions,
): DoneChunks {
  const { isFreed, exported, capacityBytes } = snapshot;
  if (!isFreed || exported === null || capacityBytes > CAPACITY_MAX_BYTES) return NOTHING;
  const freeing = new FreeingChunks(() => openTrims(exported), capacityBytes, parts);
  freeing.onFailure = (error) => {
    onNote?.(`what was read stays in the diff storage until the end: ${messageOf(error)}`);
  };
  freeing.begin();
  return freeing;
}

function chunkOf(offsetBytes: number): number {
  return Math.floor(offsetBytes / CHUNK_BYTES);
}

class FreeingChunks implements DoneChunks {
  onFailure: (error: unknown) => void = () => undefined;
  readonly #open: () => Promise<ImageTrims>;
  readonly #capacityBytes: number;
  /** Number of parts that each chunk still needs; 0: the chunk can be freed. */
  readonly #needed: Uint32Array;
  /** Chunks that can be freed, as [first, end). */
  readonly #free: [number, number][] = [];
  #sentBytes = 0;
  #isEnding = false;
  #running: Promise<void> | undefined;
  #trims: ImageTrims | undefined;

  constructor(open: () => Promise<ImageTrims>, capacityBytes: number, parts: Iterable<number>) {
    this.#open = open;
    this.#capacityBytes = capacityBytes;
    this.#needed = new Uint32Array(chunkCount(capacityBytes));
    for (const offsetBytes of parts) this.#needed[chunkOf(offsetBytes)]!++;
  }

  /** Frees what is never read. */
  begin(): void {
    for (let chunk = 0; chunk < this.#needed.length; chunk++) {
      if (this.#needed[chunk] === 0) this.#add(chunk);
    }
  }

  done(offsetBytes: number): void {
    const chunk = chunkOf(offsetBytes);
    if (this.#needed[chunk] === 0) throw new Error(`chunk ${chunk} was done already`);
    if (--this.#needed[chunk]! === 0) this.#add(chunk);
  }

  readonly end = async (): Promise<number> => {
    this.#isEnding = true;
    await this.#running;
    await this.#trims?.close().catch(() => undefined);
    this.#trims = undefined;
    return this.#sentBytes;
  };

  /** Merges adjacent pending ranges. */
  #add(chunk: number): void {
    if (this.#isEnding) return;
    const last = this.#free.at(-1);
    const hasRoom = last !== undefined && last[1] - last[0] < TRIM_CHUNKS_MAX;
    if (hasRoom && last[1] === chunk) last[1]++;
    else this.#free.push([chunk, chunk + 1]);
    this.#running ??= this.#run();
  }

  /** One after the other, beside the copy, which neither waits for them nor fails with them. */
  async #run(): Promise<void> {
    try {
      this.#trims ??= await this.#open();
      for (let free = this.#next(); free !== undefined; free = this.#next()) {
        const [start, end] = free.map((chunk) =>
          Math.min(chunk * CHUNK_BYTES, this.#capacityBytes),
        );
        this.#sentBytes += end! - start!;
        await this.#trims.trim(start!, end! - start!);
      }
      this.#running = undefined;
    } catch (error) {
      this.#isEnding = true;
      this.onFailure(error);
    }
  }

  #next(): [number, number] | undefined {
    return this.#isEnding ? undefined : this.#free.shift();
  }
}
