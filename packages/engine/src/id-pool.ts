/**
 * Ids for what is in flight, from a bounded table.
 *
 *     FREE --acquireId--> LIVE ----free----> FREE
 *                       |                  ^
 *                       +-----setLate----> LATE (ORPHANED) --free
 *
 * An id that is late can no longer be found; it is only kept. There are twice as many ids as may be live, so that a
 * store that hangs with all of them leaves as many for the others.
 */
import { assert } from "./assert.js";
import { IoState } from "./io-state.js";
import { NONE } from "./request-queue.js";

export abstract class IdPool {
  /** Ids: 0 to size - 1. */
  readonly size: number;
  /** IoState. */
  readonly state: Uint8Array;
  /** Those in flight that are not late. */
  liveCount: number = 0;
  private freeIds: number;
  private readonly liveMax: number;
  private readonly nextFree: Int32Array;
  private freeHead: number = 0;

  constructor(liveMax: number) {
    assert(Number.isInteger(liveMax) && liveMax > 0, "at least one is needed");
    const size = 2 * liveMax;
    this.size = size;
    this.liveMax = liveMax;
    this.freeIds = size;
    this.state = new Uint8Array(size);
    this.nextFree = new Int32Array(size);
    for (let id = 0; id < size; id++) this.nextFree[id] = id + 1 < size ? id + 1 : NONE;
  }

  /** How many ids can be acquired now. */
  get freeCount(): number {
    return Math.min(this.liveMax - this.liveCount, this.freeIds);
  }

  /** How many ids are late. */
  get lateCount(): number {
    return this.size - this.freeIds - this.liveCount;
  }

  /** True if no id is free, and none will be before a late one is answered. */
  isExhausted(): boolean {
    return this.liveCount === 0 && this.freeIds === 0;
  }

  /** Frees the id of something that has ended, in time or late. */
  free(id: number): void {
    if (this.state[id] === IoState.LIVE) this.leave(id);
    this.state[id] = IoState.FREE;
    this.nextFree[id] = this.freeHead;
    this.freeHead = id;
    this.freeIds++;
  }

  /** From now on the id cannot be found. */
  setLate(id: number): void {
    this.leave(id);
    this.state[id] = IoState.LATE;
  }

  protected acquireId(): number {
    const id = this.freeHead;
    assert(this.freeCount > 0, "taken without a free one");
    this.freeHead = this.nextFree[id];
    this.freeIds--;
    this.liveCount++;
    this.state[id] = IoState.LIVE;
    return id;
  }

  /** A live id has ended, or is late: removes it from where it can be found. */
  protected abstract endLife(id: number): void;

  private leave(id: number): void {
    assert(this.state[id] === IoState.LIVE, "one ends that is not live");
    this.liveCount--;
    this.endLife(id);
  }
}
