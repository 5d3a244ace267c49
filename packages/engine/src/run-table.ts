// Runs in flight: parts of image requests.
//
// A run covers [offsetInChunkBytes, rangeEndBytes) of one chunk. `lengthBytes` is the part that is
// being worked on; it is less than the whole only while blocks that were saved during a read of the
// original are read again from their slot. The table is bounded; who finds it exhausted waits.
//
//     busy   chunk hash -> number of runs in flight there        quick "nobody uses this chunk"
import { assert } from "./assert.js";
import { NONE } from "./request-queue.js";

const BUSY_BUCKETS = 1024;

export class RunTable {
  readonly size: number;
  /** RunKind. */
  readonly kind: Uint8Array;
  /** Image tag. */
  readonly tag: Int32Array;
  readonly chunk: Int32Array;
  /** Slot of the chunk; without meaning for READ_ORIGINAL and ZERO. */
  readonly slot: Int32Array;
  readonly offsetInChunkBytes: Int32Array;
  readonly lengthBytes: Int32Array;
  /** Where in the image tag's data buffer. */
  readonly bufferOffsetBytes: Int32Array;

  readonly rangeEndBytes: Int32Array;
  /** The DIRECT copy that this run stands for, or NONE. */
  readonly copy: Int32Array;
  readonly inUse: Uint8Array;
  freeCount: number;
  private readonly next: Int32Array;
  private readonly busy: Int32Array;
  private freeHead: number;

  constructor(size: number) {
    assert(Number.isInteger(size) && size > 0, "at least one run is needed");
    this.size = size;
    this.kind = new Uint8Array(size);
    this.tag = new Int32Array(size);
    this.chunk = new Int32Array(size).fill(NONE);
    this.slot = new Int32Array(size);
    this.offsetInChunkBytes = new Int32Array(size);
    this.lengthBytes = new Int32Array(size);
    this.bufferOffsetBytes = new Int32Array(size);
    this.rangeEndBytes = new Int32Array(size);
    this.copy = new Int32Array(size);
    this.inUse = new Uint8Array(size);
    this.next = new Int32Array(size);
    for (let run = 0; run < size; run++) this.next[run] = run + 1 < size ? run + 1 : NONE;
    this.busy = new Int32Array(BUSY_BUCKETS);
    this.freeHead = 0;
    this.freeCount = size;
  }

  /** Runs in flight or reserved. */
  get usedCount(): number {
    return this.size - this.freeCount;
  }

  /** Takes a free run, bound to no chunk yet. */
  take(): number {
    const run = this.freeHead;
    assert(run !== NONE, "run taken without a free one");
    this.freeHead = this.next[run];
    this.freeCount--;
    this.chunk[run] = NONE;
    return run;
  }

  /** Says that the run works on this chunk from now on. */
  bind(run: number, chunk: number): void {
    this.chunk[run] = chunk;
    this.inUse[run] = 1;
    this.busy[chunk & (BUSY_BUCKETS - 1)]++;
  }

  free(run: number): void {
    if (this.inUse[run] === 1) {
      this.busy[this.chunk[run] & (BUSY_BUCKETS - 1)]--;
      this.inUse[run] = 0;
    }
    this.chunk[run] = NONE;
    this.next[run] = this.freeHead;
    this.freeHead = run;
    this.freeCount++;
  }

  /** True if a run works on this chunk. */
  isBusy(chunk: number): boolean {
    if (this.busy[chunk & (BUSY_BUCKETS - 1)] === 0) return false;
    for (let run = 0; run < this.size; run++) {
      if (this.chunk[run] === chunk) return true;
    }
    return false;
  }
}
