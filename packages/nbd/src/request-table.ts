/** Requests from their header to the end of their reply: one for each that a connection may have, in columns. */

/** State of a slot or a request. */
export class RequestTable {
  readonly connection: Int32Array;
  readonly cookieHigh: Int32Array;
  readonly cookieLow: Int32Array;
  /** A Command, or an unknown number. */
  readonly type: Uint16Array;
  /** CommandFlag bits. */
  readonly flags: Uint16Array;
  readonly offsetBytes: Float64Array;
  /** The offset as received, for replies: also a refused one beyond 2^53. */
  readonly offsetHigh: Int32Array;
  readonly offsetLow: Int32Array;
  readonly lengthBytes: Float64Array;
  /** For block status: a bit for each requested context, by its id. */
  readonly contexts: Uint16Array;
  /** How much of it has been assigned to slots. */
  readonly startedBytes: Float64Array;
  /** Number of slots that work for it. */
  readonly pieces: Int32Array;
  /** The first error of a piece, by its wire number; 0: none. */
  readonly error: Uint16Array;
  readonly #free: Int32Array;
  #freeCount: number;

  constructor(count: number) {
    this.connection = new Int32Array(count);
    this.cookieHigh = new Int32Array(count);
    this.cookieLow = new Int32Array(count);
    this.type = new Uint16Array(count);
    this.flags = new Uint16Array(count);
    this.offsetBytes = new Float64Array(count);
    this.offsetHigh = new Int32Array(count);
    this.offsetLow = new Int32Array(count);
    this.contexts = new Uint16Array(count);
    this.lengthBytes = new Float64Array(count);
    this.startedBytes = new Float64Array(count);
    this.pieces = new Int32Array(count);
    this.error = new Uint16Array(count);
    this.#free = new Int32Array(count);
    this.#freeCount = count;
    for (let index = 0; index < count; index++) this.#free[index] = count - 1 - index;
  }

  /** Each connection has its own bound, so one is always free. */
  acquire(): number {
    this.#freeCount--;
    return this.#free[this.#freeCount];
  }

  give(request: number): void {
    this.#free[this.#freeCount] = request;
    this.#freeCount++;
  }

  /** All of it has been assigned to slots. */
  isStarted(request: number): boolean {
    return this.startedBytes[request] === this.lengthBytes[request];
  }

  /** No slot works for it, now or later. */
  isOver(request: number): boolean {
    return this.pieces[request] === 0 && this.isStarted(request);
  }
}
