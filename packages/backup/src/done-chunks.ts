/**
 * Frees in the diff storage the chunks that an export has copied, or never reads, of the image of its own snapshot.
 * Later writes to these parts of the device copy nothing, and existing copies are freed. They cannot be read again:
 * after an early end the export must take another snapshot.
 */
import { RunLimit } from "@blksnap/client";
import { messageOf } from "@blksnap/errors";
import { NbdClient, type NbdError, type NbdErrorCode } from "@blksnap/nbd";
import { CHUNK_BYTES, chunkCount } from "./chunks.js";
import type { KeptSnapshot, SnapshotOptions, TakenSnapshot } from "./snapshot.js";

/**
 * On a larger device nothing is freed: the in-memory map of its diff area would get an entry for each chunk, 24 bytes
 * for 256 KiB.
 */
const CAPACITY_MAX_BYTES = 2 ** 38;
/** Less than this to read takes about a second: what is freed by then costs more than it gives. */
const READ_MIN_BYTES = 2 ** 28;
/** Of one trim: the thread that serves the device works at it for that long. */
const TRIM_CHUNKS_MAX = 16;
/** How long a server that is gone is looked for: a daemon that is replaced is back by then. */
const RECONNECT_MS = 60_000;
const RECONNECT_PAUSE_MS = 500;

/** How to free parts of the image. */
export interface ImageTrims {
  /** @throws NbdError */
  trim(offsetBytes: number, lengthBytes: number): Promise<void>;
  /** Ends it at once; what is in flight may still be done. */
  destroy(): void;
}

export interface DoneChunksOptions extends Pick<SnapshotOptions, "onNote"> {
  /** Default: a separate connection. */
  readonly openTrims?: ((exported: string) => Promise<ImageTrims>) | undefined;
  /** Where less is to be read, nothing is freed. Default: 256 MiB. */
  readonly freesMinBytes?: number | undefined;
  /** How long reconnects are attempted. Default: 60 s. */
  readonly reconnectMs?: number | undefined;
}

/** Why nothing is freed until the end. */
export type KeptReason = KeptSnapshot | "large_device" | "little_to_read" | "no_nbd_server";

/** Null where it is freed. @param totalBytes that will be read */
export function keptReason(
  { kept, exported, capacityBytes }: TakenSnapshot,
  totalBytes: number,
  { freesMinBytes = READ_MIN_BYTES }: DoneChunksOptions,
): KeptReason | null {
  if (kept !== null) return kept;
  if (totalBytes < freesMinBytes) return "little_to_read";
  if (capacityBytes > CAPACITY_MAX_BYTES) return "large_device";
  return exported === null ? "no_nbd_server" : null;
}

const NOTHING: DoneChunks = { done: () => undefined, end: () => 0 };

export interface DoneChunks {
  /** One part of the chunk is durable in the target, and is not read again. */
  done(offsetBytes: number): void;
  /** Frees no more, and waits for nothing. Answers how many bytes may have been freed, at most. */
  readonly end: () => number;
}

/**
 * @param parts the places of all parts that will be read, each in one chunk; done() is called once for each
 * @param kept of keptReason()
 */
export function doneChunks(
  { exported, capacityBytes }: TakenSnapshot,
  parts: Iterable<number>,
  kept: KeptReason | null,
  { openTrims = NbdClient.connect, onNote, reconnectMs = RECONNECT_MS }: DoneChunksOptions,
): DoneChunks {
  if (kept !== null || exported === null) return NOTHING;
  const trims = new LastingTrims(() => openTrims(exported), reconnectMs);
  const freeing = new FreeingChunks(trims, capacityBytes, parts);
  freeing.onFailure = (error) => {
    onNote?.(
      `what is read from now on stays in the diff storage until the end: ${messageOf(error)}`,
    );
  };
  freeing.begin();
  return freeing;
}

/** What a server says that is gone, or is not there yet. */
const LOST: readonly NbdErrorCode[] = [
  "CONNECT_FAILED",
  "CONNECTION_LOST",
  "EXPORT_UNKNOWN",
  "TIMED_OUT",
];

/** Trims over a connection that is re-established when it is lost: a daemon may be replaced meanwhile. */
class LastingTrims {
  readonly #open: () => Promise<ImageTrims>;
  readonly #reconnectMs: number;
  #trims: ImageTrims | undefined;
  /** Those of one whose answer was lost count each time that they are sent. */
  sentBytes = 0;
  /** Of the time without one. */
  #lost: RunLimit | undefined;
  #isEnded = false;
  #endPause: () => void = () => undefined;

  constructor(open: () => Promise<ImageTrims>, reconnectMs: number) {
    this.#open = open;
    this.#reconnectMs = reconnectMs;
  }

  /** @throws NbdError where it is refused, the connection stays lost, or this was ended */
  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    for (;;) {
      try {
        const trims = await this.#opened();
        this.sentBytes += lengthBytes;
        await trims.trim(offsetBytes, lengthBytes);
        this.#found();
        return;
      } catch (error) {
        if (this.#isEnded || !LOST.includes((error as NbdError).code)) throw error;
        this.#trims?.destroy();
        this.#trims = undefined;
        this.#lost ??= new RunLimit(this.#reconnectMs);
        if (this.#lost.isOver) throw error;
        await this.#pause();
        if (this.#isEnded) throw error;
      }
    }
  }

  end(): void {
    this.#isEnded = true;
    this.#found();
    this.#endPause();
    this.#trims?.destroy();
    this.#trims = undefined;
  }

  #found(): void {
    this.#lost?.end();
    this.#lost = undefined;
  }

  async #opened(): Promise<ImageTrims> {
    if (this.#trims !== undefined) return this.#trims;
    const trims = await this.#open();
    if (this.#isEnded) trims.destroy();
    else this.#trims = trims;
    return trims;
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, RECONNECT_PAUSE_MS);
      this.#endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function chunkOf(offsetBytes: number): number {
  return Math.floor(offsetBytes / CHUNK_BYTES);
}

class FreeingChunks implements DoneChunks {
  onFailure: (error: unknown) => void = () => undefined;
  readonly #trims: LastingTrims;
  readonly #capacityBytes: number;
  /** Number of parts that each chunk still needs; 0: the chunk can be freed. */
  readonly #needed: Uint32Array;
  /** Chunks that can be freed, as [first, end). */
  readonly #free: [number, number][] = [];
  #isEnding = false;
  #isRunning = false;

  constructor(trims: LastingTrims, capacityBytes: number, parts: Iterable<number>) {
    this.#trims = trims;
    this.#capacityBytes = capacityBytes;
    this.#needed = new Uint32Array(chunkCount(capacityBytes));
    for (const offsetBytes of parts) this.#needed[chunkOf(offsetBytes)]!++;
  }

  /** Frees what is never read. */
  begin(): void {
    for (let chunk = 0; chunk < this.#needed.length; chunk++) {
      if (this.#needed[chunk] === 0) this.#add(chunk);
    }
    this.#start();
  }

  done(offsetBytes: number): void {
    const chunk = chunkOf(offsetBytes);
    if (this.#needed[chunk] === 0) throw new Error(`chunk ${chunk} was done already`);
    if (--this.#needed[chunk]! > 0) return;
    this.#add(chunk);
    this.#start();
  }

  readonly end = (): number => {
    this.#isEnding = true;
    this.#trims.end();
    return this.#trims.sentBytes;
  };

  /** Merges adjacent pending ranges. */
  #add(chunk: number): void {
    const last = this.#free.at(-1);
    const hasRoom = last !== undefined && last[1] - last[0] < TRIM_CHUNKS_MAX;
    if (hasRoom && last[1] === chunk) last[1]++;
    else this.#free.push([chunk, chunk + 1]);
  }

  #start(): void {
    if (!this.#isRunning) void this.#run();
  }

  /** One after the other, beside the copy, which waits for none of them and fails with none. */
  async #run(): Promise<void> {
    this.#isRunning = true;
    try {
      for (let free = this.#next(); free !== undefined; free = this.#next()) {
        const [start, end] = free.map((chunk) =>
          Math.min(chunk * CHUNK_BYTES, this.#capacityBytes),
        );
        await this.#trims.trim(start!, end! - start!);
      }
    } catch (error) {
      if (!this.#isEnding) this.onFailure(error);
      this.end();
    }
    this.#isRunning = false;
  }

  #next(): [number, number] | undefined {
    return this.#isEnding ? undefined : this.#free.shift();
  }
}
