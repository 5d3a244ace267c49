/** Requests from their header to the end of their reply: one for each that a connection may have, in columns. */

/** Why a slot, or a request, is where it is. */
export class RequestTable {
  readonly connection: Int32Array;
  readonly cookieHigh: Int32Array;
  readonly cookieLow: Int32Array;
  /** A Command. */
  readonly type: Uint8Array;
  /** CommandFlag bits. */
  readonly flags: Uint16Array;
  readonly offsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;
  /** How much of it was given to slots. */
  readonly startedBytes: Float64Array;
  /** Slots that work for it. */
  readonly pieces: Int32Array;
  /** The first error of a piece, as it goes on the wire; 0: none. */
  readonly error: Uint16Array;
  readonly #free: Int32Array;
  #freeCount: number;

  constructor(count: number) {
    this.connection = new Int32Array(count);
    this.cookieHigh = new Int32Array(count);
    this.cookieLow = new Int32Array(count);
    this.type = new Uint8Array(count);
    this.flags = new Uint16Array(count);
    this.offsetBytes = new Float64Array(count);
    this.lengthBytes = new Float64Array(count);
    this.startedBytes = new Float64Array(count);
    this.pieces = new Int32Array(count);
    this.error = new Uint16Array(count);
    this.#free = new Int32Array(count);
    this.#freeCount = count;
    for (let index = 0; index < count; index++) this.#free[index] = count - 1 - index;
  }

  /** Each connection has a bound of its own, so that there is always one. */
  take(): number {
    this.#freeCount--;
    return this.#free[this.#freeCount];
  }

  give(request: number): void {
    this.#free[this.#freeCount] = request;
    this.#freeCount++;
  }

  /** All of it was given to slots. */
  isStarted(request: number): boolean {
    return this.startedBytes[request] === this.lengthBytes[request];
  }

  /** Nothing works for it any more, and nothing will. */
  isOver(request: number): boolean {
    return this.pieces[request] === 0 && this.isStarted(request);
  }
}
