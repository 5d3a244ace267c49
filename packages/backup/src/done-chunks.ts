/**
 * Frees in the diff storage what an export is done with, chunk by chunk: a chunk of the image of its own snapshot that
 * was copied, or that it never reads. What is freed is no longer copied when the device is written to, and gives back
 * its place where it was copied. Nothing of it can be read again: an export that ends early takes another snapshot.
 */
import { messageOf } from "@blksnap/errors";
import { NbdClient } from "@blksnap/nbd";
import { CHUNK_BYTES, chunkCount } from "./chunks.js";
import type { SnapshotOptions, TakenSnapshot } from "./snapshot.js";

/**
 * Of a larger device nothing is freed: the map of its diff area, which is in memory, would get an entry for each chunk
 * that is, 24 bytes for 256 KiB.
 */
const CAPACITY_MAX_BYTES = 2 ** 38;
/** Of one trim: the thread that serves the device works at it for that long. */
const TRIM_CHUNKS_MAX = 16;

/** What the image is freed through. */
export interface ImageTrims {
  trim(offsetBytes: number, lengthBytes: number): Promise<void>;
  close(): Promise<void>;
}

export interface DoneChunksOptions extends Pick<SnapshotOptions, "onNote"> {
  /** Default: a connection of its own. */
  readonly openTrims?: ((exported: string) => Promise<ImageTrims>) | undefined;
}

const NOTHING: DoneChunks = {
  done: () => undefined,
  end: () => Promise.resolve(0),
};

export interface DoneChunks {
  /** One part of the chunk is safe in the target, and is not read again. */
  done(offsetBytes: number): void;
  /** Frees no more. Answers how many bytes may have been freed, at most. Calling it again does nothing. */
  readonly end: () => Promise<number>;
}

/**
 * @param parts the places of all parts that will be read, each in one chunk; done() is called once for each
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
  /** Parts that each chunk still needs; a chunk without any needs nothing. */
  readonly #needed: Uint32Array;
  /** Chunks that may be freed, as [first, end). */
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

  /** Frees what is not read at all. */
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

  /** Neighbours that wait become one. */
  #add(chunk: number): void {
    if (this.#isEnding) return;
    const last = this.#free.at(-1);
    const hasRoom = last !== undefined && last[1] - last[0] < TRIM_CHUNKS_MAX;
    if (hasRoom && last[1] === chunk) last[1]++;
    else this.#free.push([chunk, chunk + 1]);
    this.#running ??= this.#run();
  }

  /** One after the other, beside the copy: it waits for none of them, and none fails it. */
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
