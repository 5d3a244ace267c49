/**
 * Runs in flight: parts of image requests.
 *
 * A run covers [offsetInChunkBytes, rangeEndBytes), counted from the start of its chunk; one that reads the
 * original may continue into the chunks that follow. `lengthBytes` is the part that is in flight; it is less than the
 * whole only while blocks that were saved during a read of the original are read again from their slot: `chunk` is then
 * that of the slot. The table is bounded; a request that finds it exhausted waits.
 *
 *     busy   chunk hash -> number of runs in flight there        quick "this chunk is unused"
 */
import { RunKind } from "./constants.js";
import { IdPool } from "./id-pool.js";
import { IoStage } from "./io-state.js";
import { NONE } from "./request-queue.js";

const BUSY_BUCKETS = 1024;

/** A run is LIVE while it is reserved, too. */
export class RunTable extends IdPool {
  /** IoStage. */
  readonly stage: Uint8Array;
  /** The tick at which the present I/O began. */
  readonly since: Int32Array;
  /** RunKind. */
  readonly kind: Uint8Array;
  /** Image tag. */
  readonly tag: Int32Array;
  readonly chunk: Int32Array;
  /** The chunks that no other request may release meanwhile. */
  private readonly firstChunk: Int32Array;
  private readonly lastChunk: Int32Array;
  /** Slot of the chunk; without meaning for READ_ORIGINAL and ZERO. */
  readonly slot: Int32Array;
  readonly offsetInChunkBytes: Int32Array;
  readonly lengthBytes: Int32Array;
  /** Offset in the image tag's data buffer. */
  readonly bufferOffsetBytes: Int32Array;

  readonly rangeEndBytes: Int32Array;
  /** The DIRECT copy that this run stands for, or NONE. */
  readonly copy: Int32Array;
  readonly inUse: Uint8Array;
  /** 1: what it has read or written so far was lost with its slot. */
  readonly isStale: Uint8Array;
  private readonly busy: Int32Array;

  constructor(liveMax: number) {
    super(liveMax);
    const { size } = this;
    this.stage = new Uint8Array(size);
    this.since = new Int32Array(size);
    this.kind = new Uint8Array(size);
    this.tag = new Int32Array(size);
    this.chunk = new Int32Array(size).fill(NONE);
    this.firstChunk = new Int32Array(size).fill(NONE);
    this.lastChunk = new Int32Array(size).fill(NONE);
    this.slot = new Int32Array(size);
    this.offsetInChunkBytes = new Int32Array(size);
    this.lengthBytes = new Int32Array(size);
    this.bufferOffsetBytes = new Int32Array(size);
    this.rangeEndBytes = new Int32Array(size);
    this.copy = new Int32Array(size);
    this.inUse = new Uint8Array(size);
    this.isStale = new Uint8Array(size);
    this.busy = new Int32Array(BUSY_BUCKETS);
  }

  /** Takes a free run, bound to no chunk yet. */
  acquire(): number {
    const run = this.acquireId();
    this.chunk[run] = NONE;
    return run;
  }

  /** Notes that the run works on these chunks from now on. */
  bind(run: number, chunk: number, lastChunk: number): void {
    this.chunk[run] = chunk;
    this.firstChunk[run] = chunk;
    this.lastChunk[run] = lastChunk;
    this.stage[run] = IoStage.STORING;
    this.inUse[run] = 1;
    this.isStale[run] = 0;
    for (let at = chunk; at <= lastChunk; at++) this.busy[at & (BUSY_BUCKETS - 1)]++;
  }

  /** The content of these slots is lost: live runs that use them are stale. */
  setStale(firstSlot: number, lastSlot: number): void {
    for (let run = 0; run < this.size; run++) {
      const kind = this.kind[run];
      const usesSlot = kind === RunKind.READ_SLOT || kind === RunKind.WRITE_SLOT;
      const isThere = this.slot[run] >= firstSlot && this.slot[run] <= lastSlot;
      if (usesSlot && isThere && this.inUse[run] === 1) this.isStale[run] = 1;
    }
  }

  protected endLife(run: number): void {
    if (this.inUse[run] === 1) {
      const last = this.lastChunk[run];
      for (let at = this.firstChunk[run]; at <= last; at++) this.busy[at & (BUSY_BUCKETS - 1)]--;
      this.inUse[run] = 0;
    }
    this.chunk[run] = NONE;
    this.firstChunk[run] = NONE;
    this.lastChunk[run] = NONE;
  }

  /** True if a run works on this chunk. */
  isBusy(chunk: number): boolean {
    if (this.busy[chunk & (BUSY_BUCKETS - 1)] === 0) return false;
    for (let run = 0; run < this.size; run++) {
      if (this.firstChunk[run] <= chunk && chunk <= this.lastChunk[run]) return true;
    }
    return false;
  }
}
