/** Copies parts of an image, one by one, to the same offsets of a target. */
import { ChunkPool } from "./chunk-pool.js";
import { abortedError, targetError } from "./errors.js";
import type { ExportOptions } from "./export-store.js";
import { inFlight } from "./in-flight.js";
import { PartMemory, SMALL_BYTES } from "./part-memory.js";
import { PartQueue, type WrittenFile } from "./part-queue.js";
import { DIRECT_MIN_BYTES } from "./part-writes.js";
import { bytesOf, type Part } from "./parts.js";
import { Meter } from "./progress.js";
import type { ImageReader } from "./source.js";
import { NO_BLOCKS, type Sums, sumsOf } from "./sums.js";

/** Fewer bytes are summed and written on this thread: starting another takes longer. */
const THREADS_MIN_BYTES = 2 ** 28;
/**
 * So many small parts go to one in any case: a message hands it many of them, while each write from here is handed to a
 * thread by itself.
 */
const SMALL_PARTS_MIN = 1024;

/** Target of the parts. */
export interface PartWriter {
  write(data: Uint8Array, offsetBytes: number): Promise<void>;
  writeZeros(offsetBytes: number, lengthBytes: number): Promise<void>;
}

/** A target whose file threads may write. */
interface FilePartWriter extends PartWriter, WrittenFile {
  readonly path: string;
  /** write() handles everything before this offset. */
  readonly headBytes: number;
}

function isSmall({ lengthBytes }: Part): boolean {
  return lengthBytes <= SMALL_BYTES;
}

/** Its write only copies it to the page cache. Of those that wait for a disk, more are in flight from here. */
function isBuffered({ lengthBytes, isDiscarded }: Part): boolean {
  return !isDiscarded && lengthBytes < DIRECT_MIN_BYTES;
}

class PartCopy {
  readonly #image: ImageReader;
  readonly #target: PartWriter;
  readonly #file: FilePartWriter | undefined;
  readonly #sums: Sums | undefined;
  readonly #memory = new PartMemory();
  /** Sum parts, and also write them. */
  readonly #summing: PartQueue;
  readonly #writing: PartQueue;

  constructor(
    pool: ChunkPool,
    image: ImageReader,
    target: PartWriter | FilePartWriter,
    sums: Sums | undefined,
  ) {
    this.#image = image;
    this.#target = target;
    this.#file = "files" in target ? target : undefined;
    this.#sums = sums;
    this.#summing = new PartQueue(pool, undefined);
    this.#writing = new PartQueue(pool, this.#file);
  }

  /** @param isSummedHere this thread sums it */
  async run(part: Part, isSummedHere: boolean): Promise<void> {
    const { offsetBytes, lengthBytes, isDiscarded } = part;
    const place = isDiscarded ? undefined : this.#memory.acquire(lengthBytes);
    const window = this.#sums?.windowOf(offsetBytes, lengthBytes) ?? NO_BLOCKS;
    let sums: Uint32Array | null = null;
    if (place !== undefined) {
      await this.#image.read(place, offsetBytes);
      const file =
        isSummedHere || offsetBytes < (this.#file?.headBytes ?? 0) ? undefined : this.#file;
      if (file !== undefined) {
        sums = await this.#writing.put(place, offsetBytes, window).catch((error: unknown) => {
          throw targetError("write", file.path, error);
        });
      } else {
        sums = isSummedHere
          ? sumsOf(place, window)
          : await this.#summing.put(place, offsetBytes, window);
        if (sums !== null) await this.#target.write(place, offsetBytes);
      }
      this.#memory.giveBack(place);
    }
    if (sums === null) await this.#target.writeZeros(offsetBytes, lengthBytes);
    this.#sums?.put(offsetBytes, lengthBytes, sums);
  }
}

/**
 * Copies all parts. Returns the number of bytes read.
 * @param sums gets those of the parts
 * @param onDone called with each part that was read and written
 */
export async function copyParts(
  parts: readonly Part[],
  image: ImageReader,
  target: PartWriter | FilePartWriter,
  sums: Sums | undefined,
  options: Pick<ExportOptions, "signal" | "onProgress" | "threadsMinBytes">,
  onDone: (offsetBytes: number) => void = () => undefined,
): Promise<number> {
  const { signal, onProgress, threadsMinBytes = THREADS_MIN_BYTES } = options;
  const meter = new Meter(bytesOf(parts), onProgress);
  const pool = new ChunkPool();
  const copy = new PartCopy(pool, image, target, sums);
  const isLittle = bytesOf(parts) < threadsMinBytes;
  const run = async (part: Part, isSummedHere: boolean): Promise<void> => {
    if (signal?.aborted === true) throw abortedError();
    await copy.run(part, isSummedHere);
    if (part.isDiscarded) return;
    meter.add(part.lengthBytes);
    onDone(part.offsetBytes);
  };
  const [large, small] = [parts.filter((part) => !isSmall(part)), parts.filter(isSmall)];
  const isMany = "files" in target && small.filter(isBuffered).length >= SMALL_PARTS_MIN;
  const groups = [
    { some: large, isSummedHere: isLittle },
    { some: small, isSummedHere: isLittle && !isMany },
  ];
  try {
    for (const { some, isSummedHere } of groups) {
      const depth = PartMemory.depthOf(some[0]?.lengthBytes ?? 0);
      await inFlight(some, depth, (part) => run(part, isSummedHere));
    }
  } finally {
    await pool.close();
  }
  return meter.doneBytes;
}
