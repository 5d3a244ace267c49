/**
 * Buffers of requests whose I/O may be answered late. A request has one buffer at a time, its place. If late I/O
 * still uses the buffer, the request gets another, and the buffer stays mapped until the answer arrives.
 *
 * ```
 *   place 3 ──▶ buffer 3      replace(3)      place 3 ──▶ spare 17
 *                ▲ late I/O                               buffer 3 ◀─ late I/O, then unused
 * ```
 *
 * A store with late I/O gets no more, so each store keeps at most one buffer per place.
 */
import { assert, MappedMemory } from "@blksnap/uring";

const SPARES_PER_PLACE = 8;
const FREE = -1;

export interface IoBuffersOptions {
  readonly places: number;
  /** I/O that can be in flight has ids from 0 to ids - 1. */
  readonly ids: number;
  readonly lengthBytes: number;
  /** Address of a place's first buffer. */
  readonly address: (place: number) => number;
  /** Called after close(), when nothing uses a buffer any more. */
  readonly onIdle: () => void;
}

export class IoBuffers {
  readonly #options: IoBuffersOptions;
  readonly #places: number;
  /** Address of each buffer. */
  readonly #addresses: Float64Array;
  readonly #bufferOf: Int32Array;
  readonly #users: Int32Array;
  /** By id: the buffer that it uses. */
  readonly #used: Int32Array;
  /** By buffer number, less the number of places. */
  readonly #spares: MappedMemory[] = [];
  readonly #free: number[] = [];
  #busy = 0;
  #closing = false;

  constructor(options: IoBuffersOptions) {
    const { places, ids, address } = options;
    this.#options = options;
    this.#places = places;
    this.#addresses = new Float64Array(places * (1 + SPARES_PER_PLACE));
    for (let place = 0; place < places; place++) this.#addresses[place] = address(place);
    this.#bufferOf = Int32Array.from({ length: places }, (_, place) => place);
    this.#users = new Int32Array(places * (1 + SPARES_PER_PLACE));
    this.#used = new Int32Array(ids).fill(FREE);
  }

  /** How many I/Os are in flight. */
  get busy(): number {
    return this.#busy;
  }

  /** I/O begins, in the buffer of the place. */
  begin(id: number, place: number): void {
    const buffer = this.#bufferOf[place];
    this.#used[id] = buffer;
    this.#users[buffer]++;
    this.#busy++;
  }

  /** Address of the buffer of I/O that has begun. */
  addressOf(id: number): number {
    return this.#addresses[this.#used[id]];
  }

  /** Stores the halves of the address of a byte in that buffer, under the id: a returned number could be garbage. */
  storeAddress(id: number, offsetBytes: number, low: Int32Array, high: Int32Array): void {
    const address = this.#addresses[this.#used[id]] + offsetBytes;
    low[id] = address | 0;
    high[id] = (address / 4294967296) | 0;
  }

  /** It has been answered. */
  end(id: number): void {
    const buffer = this.#used[id];
    assert(buffer !== FREE, "I/O ends that did not begin");
    this.#used[id] = FREE;
    this.#users[buffer]--;
    this.#busy--;
    if (this.#users[buffer] === 0 && buffer >= this.#places) this.#giveBack(buffer);
    if (this.#closing && this.#busy === 0) this.#release();
  }

  /** Whether I/O that has begun uses the buffer that the place has now. */
  isAt(id: number, place: number): boolean {
    return this.#used[id] === this.#bufferOf[place];
  }

  /** The spare that the place has, if it has one. */
  spareOf(place: number): MappedMemory | undefined {
    const spare = this.#bufferOf[place] - this.#places;
    // An index below 0 would make the array be searched like an object, which takes longer than everything else here.
    return spare < 0 ? undefined : this.#spares[spare];
  }

  /** Late I/O uses the buffer of the place: it gets another, if there is memory for one. */
  replace(place: number): MappedMemory | undefined {
    if (this.#users[this.#bufferOf[place]] === 0) return undefined;
    const spare = this.#free.pop() ?? this.#makeSpare();
    if (spare === undefined) return undefined;
    this.#bufferOf[place] = spare;
    return this.spareOf(place);
  }

  /** No more I/O will begin. */
  close(): void {
    this.#closing = true;
    if (this.#busy === 0) this.#release();
  }

  #makeSpare(): number | undefined {
    const buffer = this.#places + this.#spares.length;
    if (buffer >= this.#users.length) return undefined;
    try {
      const memory = MappedMemory.anonymous(this.#options.lengthBytes);
      this.#spares.push(memory);
      this.#addresses[buffer] = memory.address;
      return buffer;
    } catch {
      return undefined;
    }
  }

  /** Frees the buffer, unless a place has it now. */
  #giveBack(buffer: number): void {
    if (!this.#bufferOf.includes(buffer) && !this.#free.includes(buffer)) this.#free.push(buffer);
  }

  #release(): void {
    for (const spare of this.#spares.splice(0)) spare.unmap();
    this.#options.onIdle();
  }
}
