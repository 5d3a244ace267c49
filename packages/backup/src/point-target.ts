/**
 * A point in time as the target of an NBD server: its chunks are decompressed into a cache as clients read them.
 *
 * ```
 *   read ──▶ line ──▶ its chunks have places ──▶ all are there ──▶ copied and answered
 *              ▲          │ want(place, chunk) ──▶ another thread ──▶ loaded(place)
 *              └── too few places are free: the first one waits, and those behind it
 * ```
 *
 * A read gets the slots of all its chunks at once, or none, and keeps them until it completes: so the first one in
 * the line always makes progress.
 */
import { EIO, EOPNOTSUPP } from "@blksnap/errors";
import { type RequestQueue, type Target, UblkOp } from "@blksnap/ublk";
import { CHUNK_BYTES } from "./chunks.js";

const SECTOR_BYTES = 512;
/** Chunks that are decompressed at a time, and stay cached for later reads. */
export const PLACES = 16;

type PlaceState = "free" | "loading" | "there" | "failed";

interface Place {
  state: PlaceState;
  chunk: number;
  /** Reads in progress. */
  users: number;
  /** Incremented by each completion; the entry with the least value is evicted first. */
  lastUse: number;
}

export class PointTarget implements Target {
  readonly #queue: RequestQueue;
  readonly #cache: Uint8Array;
  readonly #isZeros: Uint8Array;
  readonly #want: (place: number, chunk: number) => void;
  readonly #places: Place[] = Array.from({ length: PLACES }, () => {
    return { state: "free", chunk: -1, users: 0, lastUse: 0 };
  });
  readonly #placeOf: Map<number, number> = new Map();
  /** Tags of reads without slots, and of those with slots. */
  readonly #line: number[] = [];
  #begun: number[] = [];
  #uses = 0;
  #isAdvancing = false;
  #isAgain = false;
  #isOver = false;

  /**
   * @param cache PLACES chunks
   * @param isZeros for each chunk of the point, 1 if it is zeros
   * @param want loads a chunk into a slot; loaded() reports its end
   */
  constructor(
    queue: RequestQueue,
    cache: Uint8Array,
    isZeros: Uint8Array,
    want: (place: number, chunk: number) => void,
  ) {
    this.#queue = queue;
    this.#cache = cache;
    this.#isZeros = isZeros;
    this.#want = want;
  }

  queueIo(tag: number): void {
    const op = this.#queue.op(tag);
    if (op !== UblkOp.READ) {
      this.#queue.complete(tag, op === UblkOp.FLUSH ? 0 : -EOPNOTSUPP);
      return;
    }
    if (this.#isOver) {
      this.#queue.complete(tag, -EIO);
      return;
    }
    this.#line.push(tag);
    this.#advance();
  }

  /** @param isGood false: the store lacks the chunk, or it is damaged; the next read checks again */
  loaded(place: number, isGood: boolean): void {
    this.#places[place]!.state = isGood ? "there" : "failed";
    this.#advance();
  }

  /** Loading has ended: pending and later reads fail. */
  giveUp(): void {
    this.#isOver = true;
    const tags = [...this.#begun, ...this.#line.splice(0)];
    this.#begun = [];
    for (const tag of tags) this.#queue.complete(tag, -EIO);
  }

  close(): void {}

  /** A completion may lead to the next read at once. */
  #advance(): void {
    this.#isAgain = true;
    if (this.#isAdvancing) return;
    this.#isAdvancing = true;
    try {
      while (this.#isAgain) {
        this.#isAgain = false;
        while (this.#line.length > 0 && this.#begin(this.#line[0]!)) {
          this.#begun.push(this.#line.shift()!);
        }
        const ready = this.#begun.filter((tag) => this.#isReady(tag));
        this.#begun = this.#begun.filter((tag) => !ready.includes(tag));
        for (const tag of ready) this.#answer(tag);
        if (ready.length > 0) this.#isAgain = true;
      }
    } finally {
      this.#isAdvancing = false;
    }
  }

  #startBytes(tag: number): number {
    const queue = this.#queue;
    return (
      (queue.startSectorHigh(tag) * 2 ** 32 + (queue.startSectorLow(tag) >>> 0)) * SECTOR_BYTES
    );
  }

  /** The chunks of a read that are not zeros. */
  #chunksOf(tag: number): number[] {
    const startBytes = this.#startBytes(tag);
    const endBytes = startBytes + this.#queue.sectors(tag) * SECTOR_BYTES;
    const chunks: number[] = [];
    for (
      let chunk = Math.floor(startBytes / CHUNK_BYTES);
      chunk * CHUNK_BYTES < endBytes;
      chunk++
    ) {
      if (this.#isZeros[chunk] !== 1) chunks.push(chunk);
    }
    return chunks;
  }

  /** @returns false if too few slots are free */
  #begin(tag: number): boolean {
    const chunks = this.#chunksOf(tag);
    const missing = chunks.filter((chunk) => !this.#placeOf.has(chunk));
    const own = chunks.map((chunk) => this.#placeOf.get(chunk));
    const free = [...this.#places.keys()]
      .filter((place) => this.#places[place]!.users === 0 && !own.includes(place))
      .sort((one, other) => this.#places[one]!.lastUse - this.#places[other]!.lastUse);
    if (free.length < missing.length) return false;
    for (const [index, chunk] of missing.entries()) this.#load(free[index]!, chunk);
    for (const chunk of chunks) this.#places[this.#placeOf.get(chunk)!]!.users++;
    return true;
  }

  #load(index: number, chunk: number): void {
    const place = this.#places[index]!;
    this.#placeOf.delete(place.chunk);
    place.chunk = chunk;
    place.state = "loading";
    this.#placeOf.set(chunk, index);
    this.#want(index, chunk);
  }

  #placesOf(tag: number): Place[] {
    return this.#chunksOf(tag).map((chunk) => this.#places[this.#placeOf.get(chunk)!]!);
  }

  #isReady(tag: number): boolean {
    return this.#placesOf(tag).every(({ state }) => state !== "loading");
  }

  #answer(tag: number): void {
    const places = this.#placesOf(tag);
    const isGood = places.every(({ state }) => state === "there");
    const bytes = this.#queue.sectors(tag) * SECTOR_BYTES;
    if (isGood) this.#copy(tag, bytes);
    for (const place of places) {
      place.users--;
      place.lastUse = ++this.#uses;
      if (place.state === "failed" && place.users === 0) this.#forget(place);
    }
    this.#queue.complete(tag, isGood ? bytes : -EIO);
  }

  #forget(place: Place): void {
    this.#placeOf.delete(place.chunk);
    place.chunk = -1;
    place.state = "free";
    place.lastUse = 0;
  }

  #copy(tag: number, bytes: number): void {
    const to = this.#queue.bufferBytes(tag);
    const startBytes = this.#startBytes(tag);
    for (let done = 0; done < bytes; ) {
      const at = startBytes + done;
      const chunk = Math.floor(at / CHUNK_BYTES);
      const inChunk = at - chunk * CHUNK_BYTES;
      const count = Math.min(bytes - done, CHUNK_BYTES - inChunk);
      if (this.#isZeros[chunk] === 1) to.fill(0, done, done + count);
      else {
        const from = this.#placeOf.get(chunk)! * CHUNK_BYTES + inChunk;
        to.set(this.#cache.subarray(from, from + count), done);
      }
      done += count;
    }
  }
}
