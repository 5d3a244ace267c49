/**
 * Copies in flight: blocks on their way into a slot.
 *
 *     buckets   chunk hash -> first copy -> next copy -> ...     (chain through `next`)
 *     copy      chunk, range [rangeStart, rangeEnd) of blocks    what others must wait for
 *               I/O   [blockStart, blockStart + blockCount)      what is being copied now
 *               waiters: requests that need one of these blocks  (queue through the request links)
 *               ahead [ownEnd, rangeEnd)                         what its request itself does not need
 *
 * Copies in flight never overlap. Range and I/O differ only while a failed copy is retried block by block. The table
 * is bounded; a request that finds it exhausted waits in a queue.
 */
import { assert } from "./assert.js";
import { CopyMode } from "./constants.js";
import { IdPool } from "./id-pool.js";
import { IoStage, IoState } from "./io-state.js";
import { NONE } from "./request-queue.js";

export class CopyTable extends IdPool {
  /** IoStage. */
  readonly stage: Uint8Array;
  /** The tick at which the present stage began; see IoStage. */
  readonly since: Int32Array;
  /** CopyKind. */
  readonly kind: Uint8Array;
  /** CopyMode. */
  readonly mode: Uint8Array;
  readonly chunk: Int32Array;
  readonly slot: Int32Array;
  /** First block of the I/O, from the chunk's start. */
  readonly blockStart: Int32Array;
  /** Blocks of the I/O. */
  readonly blockCount: Int32Array;
  /** Length of the I/O; shorter than the blocks at the end of the device. */
  readonly lengthBytes: Int32Array;
  /** Whose copy window: BufferOwner.FRONT or IMAGE. */
  readonly bufferOwner: Uint8Array;
  readonly bufferTag: Int32Array;
  /** Offset in that tag's copy window. */
  readonly bufferOffsetBytes: Int32Array;

  /** 1: what it has written so far was lost with its slot. */
  readonly isStale: Uint8Array;
  readonly rangeStart: Int32Array;
  readonly rangeEnd: Int32Array;
  /** Blocks from here on are copied ahead of its request. */
  readonly ownEnd: Int32Array;
  /** Id of the request that started it. */
  readonly owner: Int32Array;
  readonly waitersHead: Int32Array;
  readonly waitersTail: Int32Array;
  private readonly next: Int32Array;
  private readonly buckets: Int32Array;
  private readonly mask: number;

  constructor(liveMax: number) {
    super(liveMax);
    const { size } = this;
    this.stage = new Uint8Array(size);
    this.since = new Int32Array(size);
    this.kind = new Uint8Array(size);
    this.mode = new Uint8Array(size);
    this.chunk = new Int32Array(size);
    this.slot = new Int32Array(size);
    this.blockStart = new Int32Array(size);
    this.blockCount = new Int32Array(size);
    this.lengthBytes = new Int32Array(size);
    this.bufferOwner = new Uint8Array(size);
    this.bufferTag = new Int32Array(size);
    this.bufferOffsetBytes = new Int32Array(size);
    this.isStale = new Uint8Array(size);
    this.rangeStart = new Int32Array(size);
    this.rangeEnd = new Int32Array(size);
    this.ownEnd = new Int32Array(size);
    this.owner = new Int32Array(size);
    this.waitersHead = new Int32Array(size).fill(NONE);
    this.waitersTail = new Int32Array(size).fill(NONE);
    this.next = new Int32Array(size);
    const bucketCount = 2 ** Math.ceil(Math.log2(size * 2));
    this.mask = bucketCount - 1;
    this.buckets = new Int32Array(bucketCount).fill(NONE);
  }

  /** Takes a free copy and registers it as [start, end) of the chunk. */
  acquire(chunk: number, start: number, end: number): number {
    assert(end > start, "a copy of nothing");
    const copy = this.acquireId();
    this.stage[copy] = IoStage.READING;
    this.mode[copy] = CopyMode.LINKED;
    this.chunk[copy] = chunk;
    this.rangeStart[copy] = start;
    this.rangeEnd[copy] = end;
    this.ownEnd[copy] = end;
    this.blockStart[copy] = start;
    this.blockCount[copy] = end - start;
    const bucket = this.bucketOf(chunk);
    this.next[copy] = this.buckets[bucket];
    this.buckets[bucket] = copy;
    return copy;
  }

  /** The content of these slots is lost: live copies to them are stale. */
  setStale(firstSlot: number, lastSlot: number): void {
    for (let copy = 0; copy < this.size; copy++) {
      const isThere = this.slot[copy] >= firstSlot && this.slot[copy] <= lastSlot;
      if (isThere && this.state[copy] === IoState.LIVE) this.isStale[copy] = 1;
    }
  }

  /** Its waiters must have been removed before. */
  protected endLife(copy: number): void {
    assert(this.waitersHead[copy] === NONE, "copy freed with requests waiting on it");
    const bucket = this.bucketOf(this.chunk[copy]);
    if (this.buckets[bucket] === copy) {
      this.buckets[bucket] = this.next[copy];
    } else {
      let before = this.buckets[bucket];
      while (this.next[before] !== copy) before = this.next[before];
      this.next[before] = this.next[copy];
    }
  }

  /** The first copy that overlaps [start, end) of the chunk and whose mode is at least `mode`, or NONE. */
  find(chunk: number, start: number, end: number, mode: number = CopyMode.LINKED): number {
    let found = NONE;
    let copy = this.buckets[this.bucketOf(chunk)];
    while (copy !== NONE) {
      if (
        this.chunk[copy] === chunk &&
        this.mode[copy] >= mode &&
        this.rangeStart[copy] < end &&
        this.rangeEnd[copy] > start &&
        (found === NONE || this.rangeStart[copy] < this.rangeStart[found])
      ) {
        found = copy;
      }
      copy = this.next[copy];
    }
    return found;
  }

  private bucketOf(chunk: number): number {
    return (Math.imul(chunk, 0x9e3779b1) >>> 15) & this.mask;
  }
}
