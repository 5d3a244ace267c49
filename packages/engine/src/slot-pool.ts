// Slots granted to an area and not used yet.
//
//     first   [ 40 | 96 |  . |  . ]      a ring of extents: slots 40..44, then 96..103
//     count   [  5 |  8 |  . |  . ]
//                ^head
//
// Slots are the allocator's numbers, 0 to 2^31 - 2; the engine only hands them out one by one.
//
//     asked    a request for more is under way: a request without a slot waits
//     denied   the last answer was no: a request that finds no slot fails at once, until a grant
//
// Extents of hung stores stay, and the area asks for others. It asks only while the stores that answer have few slots
// left, so a store never has more extents here than it had slots then, plus those granted unasked; DiffArea makes
// room for these.
import { assert } from "./assert.js";
import { ENOSPC } from "./constants.js";
import { EngineError } from "./errors.js";

export const NO_FREE_SLOT = -1;
const SLOT_MAX = 2 ** 31 - 2;

export class SlotPool {
  freeCount: number = 0;
  asked: boolean = false;
  /** Errno (positive) of the last answer if that was a denial, else 0. */
  deniedErrno: number = 0;
  private readonly first: Int32Array;
  private readonly count: Int32Array;
  private readonly storeShift: number;
  /** By store. */
  private readonly freeIn: Int32Array;
  private head: number = 0;
  private used: number = 0;

  /** @param storeShift see DiffAreaOptions */
  constructor(extentsMax: number, storeShift: number = 31, storeCount: number = 1) {
    assert(Number.isInteger(extentsMax) && extentsMax > 0, "a slot pool needs room for an extent");
    this.storeShift = storeShift;
    this.freeIn = new Int32Array(storeCount);
    this.first = new Int32Array(extentsMax);
    this.count = new Int32Array(extentsMax);
  }

  /** Extents that grant() has room for. */
  get extentsFree(): number {
    return this.first.length - this.used;
  }

  /** True if the last answer was a denial. */
  get isRefused(): boolean {
    return this.deniedErrno !== 0;
  }

  /** A slot, or NO_FREE_SLOT. `hungStores`: bit per store whose slots are skipped. */
  acquire(hungStores: number = 0): number {
    if (this.used === 0 || (hungStores !== 0 && !this.bringForward(hungStores))) {
      return NO_FREE_SLOT;
    }
    const head = this.head;
    const slot = this.first[head];
    this.first[head]++;
    this.count[head]--;
    this.freeCount--;
    this.freeIn[slot >>> this.storeShift]--;
    if (this.count[head] === 0) {
      this.head = (head + 1) % this.first.length;
      this.used--;
    }
    return slot;
  }

  /** Slots that lie in none of these stores. */
  countOutside(hungStores: number): number {
    if (hungStores === 0) return this.freeCount;
    let count = 0;
    for (let store = 0; store < this.freeIn.length; store++) {
      if (((hungStores >>> store) & 1) === 0) count += this.freeIn[store];
    }
    return count;
  }

  /** Makes the first extent outside these stores the next one. False: there is none. */
  private bringForward(hungStores: number): boolean {
    const { first, count, head } = this;
    for (let i = 0; i < this.used; i++) {
      const at = (head + i) % first.length;
      if (this.liesIn(at, hungStores)) continue;
      const firstSlot = first[at];
      const slots = count[at];
      first[at] = first[head];
      count[at] = count[head];
      first[head] = firstSlot;
      count[head] = slots;
      return true;
    }
    return false;
  }

  private liesIn(at: number, hungStores: number): boolean {
    return ((hungStores >>> (this.first[at] >>> this.storeShift)) & 1) === 1;
  }

  /**
   * Adds slots firstSlot..firstSlot+count-1, all of one store. Throws SLOTS_FULL if too many extents wait, which counts
   * as a denial.
   */
  grant(firstSlot: number, count: number): void {
    assert(Number.isInteger(firstSlot) && firstSlot >= 0, "slot numbers are 0 to 2^31 - 2");
    assert(Number.isInteger(count) && count > 0, "a grant has at least one slot");
    assert(firstSlot + count - 1 <= SLOT_MAX, "slot numbers are 0 to 2^31 - 2");
    const store = firstSlot >>> this.storeShift;
    assert(store < this.freeIn.length, "a slot lies in no store");
    assert(store === (firstSlot + count - 1) >>> this.storeShift, "an extent of two stores");
    const tail = (this.head + this.used + this.first.length - 1) % this.first.length;
    const isNext = this.used > 0 && this.first[tail] + this.count[tail] === firstSlot;
    if (isNext && this.first[tail] >>> this.storeShift === store) {
      this.count[tail] += count;
    } else {
      if (this.used === this.first.length) {
        this.deny(ENOSPC);
        throw new EngineError("SLOTS_FULL", `${this.used} slot extents wait already: grant fewer`);
      }
      const at = (this.head + this.used) % this.first.length;
      this.first[at] = firstSlot;
      this.count[at] = count;
      this.used++;
    }
    this.freeCount += count;
    this.freeIn[store] += count;
    this.asked = false;
    this.deniedErrno = 0;
  }

  /** Calls `visit` for each extent, the next one first. Cold. */
  forEachExtent(visit: (firstSlot: number, count: number) => void): void {
    for (let i = 0; i < this.used; i++) {
      const at = (this.head + i) % this.first.length;
      visit(this.first[at], this.count[at]);
    }
  }

  /**
   * Removes up to `most` slots, the last ones first, and calls `visit` with each of their extents. Cold.
   */
  giveBack(most: number, visit: (firstSlot: number, count: number) => void): void {
    for (let left = Math.min(most, this.freeCount); left > 0; ) {
      const at = (this.head + this.used - 1) % this.first.length;
      const count = Math.min(left, this.count[at]);
      this.count[at] -= count;
      const firstSlot = this.first[at] + this.count[at];
      if (this.count[at] === 0) this.used--;
      this.freeCount -= count;
      this.freeIn[firstSlot >>> this.storeShift] -= count;
      left -= count;
      visit(firstSlot, count);
    }
  }

  /** Notes that the request for more slots was refused. `errno` is positive. */
  deny(errno: number): void {
    assert(errno > 0, "a denial needs a positive errno");
    this.asked = false;
    this.deniedErrno = errno;
  }
}
