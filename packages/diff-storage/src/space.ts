import { SlotBitmap } from "./bitmap.js";
import { assert, DiffStorageError } from "./errors.js";
import { makeSlot, SLOTS_PER_STORE_MAX } from "./slot.js";
import type { Store } from "./store.js";

/** Slots that are being preallocated or punched out. */
export interface MovingRange {
  readonly first: number;
  readonly count: number;
}

/**
 * The state of each slot of one store.
 *
 * ```text
 *            preallocate                take
 *   hole ──▶ (moving) ──▶ ready ────────────────▶ used
 *    ▲                     │  ▲                    │
 *    └───── (moving) ◀─────┘  └────────────────────┘
 *             punch                   release
 * ```
 *
 * A **hole** has an index but no allocated space, so it is never handed out; a failed write to a slot then means a
 * broken disk, not a full one. Indexes from the end of a file on are holes, too. Holes are filled before a file is
 * extended, so a file never becomes longer than the most that was in use at one time.
 *
 * Slots count against the limit from the start of their preallocation to the end of their punching.
 */
export class StoreSpace {
  readonly store: Store;
  readonly storeIndex: number;
  readonly slotBytes: number;
  /** Most slots of this store that may have space. */
  readonly limitSlots: number;
  /** The store does not answer: none of its slots are handed out, and it does not grow. */
  suspended = false;
  #used = new SlotBitmap();
  #ready = new SlotBitmap();
  #holes = new SlotBitmap();
  #movingSlots = 0;
  #moves = 0;
  #endSlots: number;
  /** Slots of a file that existed before: they count against the limit with or without space. */
  #openedSlots: number;
  #growing: MovingRange | undefined;
  #isRetired = false;
  #punchCursor = 0;

  /** @param countedMost how much a file that existed before may take of the common limit, in slots */
  constructor(
    store: Store,
    storeIndex: number,
    slotBytes: number,
    limitSlots: number,
    countedMost: number = Number.POSITIVE_INFINITY,
  ) {
    this.store = store;
    this.storeIndex = storeIndex;
    this.slotBytes = slotBytes;
    this.limitSlots = Math.min(limitSlots, SLOTS_PER_STORE_MAX);
    this.#endSlots = Math.min(Math.floor(store.openedBytes / slotBytes), SLOTS_PER_STORE_MAX);
    const opened = Math.min(this.#endSlots, this.limitSlots, countedMost);
    this.#openedSlots = store.growable ? opened : 0;
    if (this.#endSlots > 0) this.#holes.add(0, this.#endSlots);
  }

  get usedSlots(): number {
    return this.#used.count;
  }

  /** Slots that can be handed out now. */
  get readySlots(): number {
    return this.suspended ? 0 : this.#ready.count;
  }

  /** The same, including slots of a store that does not answer: that is no lack of space. */
  get spareSlots(): number {
    return this.#ready.count;
  }

  get holeSlots(): number {
    return this.#holes.count;
  }

  /** Slots with space, or being preallocated or punched: the limit bounds these. */
  get committedSlots(): number {
    return this.#used.count + this.#ready.count + this.#movingSlots;
  }

  /** Slots with space that are not being punched. */
  get committedStillSlots(): number {
    return this.#used.count + this.#ready.count;
  }

  /** Counts each gain of space and each beginning loss: equal numbers mean no change in between. */
  get moves(): number {
    return this.#moves;
  }

  /** Slots that no other store may have: the committed ones, or the file's size when opened. */
  get countedSlots(): number {
    return Math.max(this.committedSlots, this.#openedSlots);
  }

  /** Slots up to the end of the store, including holes. */
  get endSlots(): number {
    return this.#endSlots;
  }

  get growing(): boolean {
    return this.#growing !== undefined;
  }

  /** Nothing is handed out any more, and the store does not grow; used slots stay. */
  retire(): void {
    this.#isRetired = true;
    this.#ready = new SlotBitmap();
  }

  /** True if it does not answer, and has slots, or room for at most `otherRoomSlots`. */
  isWithholding(otherRoomSlots: number): boolean {
    if (!this.suspended) return false;
    return this.#ready.count > 0 || this.#roomSlots(otherRoomSlots) > 0;
  }

  /** Slots that could still get space, at most `otherRoomSlots`. */
  roomSlots(otherRoomSlots: number): number {
    return this.suspended ? 0 : this.#roomSlots(otherRoomSlots);
  }

  #roomSlots(otherRoomSlots: number): number {
    if (this.#isRetired) return 0;
    const beyondEnd = this.store.growable ? SLOTS_PER_STORE_MAX - this.#endSlots : 0;
    const own = Math.min(this.limitSlots - this.committedSlots, this.#holes.count + beyondEnd);
    return Math.max(0, Math.min(own, otherRoomSlots));
  }

  /** Hands out the first ready run, up to `maxSlots`; undefined if no slot is ready. */
  acquire(maxSlots: number): { firstSlot: number; count: number } | undefined {
    if (this.suspended) return undefined;
    const run = this.#ready.findRun(0, maxSlots);
    if (run === undefined) return undefined;
    this.#ready.remove(run.first, run.count);
    this.#used.add(run.first, run.count);
    return { firstSlot: makeSlot(this.storeIndex, run.first), count: run.count };
  }

  /** Frees used slots. Throws SLOT_INVALID, changing nothing, if one of them is not used. */
  release(first: number, count: number): void {
    for (let index = first; index < first + count; index++) {
      if (this.#used.has(index)) continue;
      const text = `slot ${index} of store ${this.storeIndex} (${this.store.path}) is not in use`;
      throw new DiffStorageError("SLOT_INVALID", text, { path: this.store.path });
    }
    this.#used.remove(first, count);
    if (!this.#isRetired) this.#ready.add(first, count);
  }

  /**
   * Marks a slot as used that an earlier process's map names. Only before the first growth. Returns false for one
   * beyond the end of a file: its content was truncated.
   */
  reserve(index: number): boolean {
    assert(this.#ready.count === 0 && this.#movingSlots === 0, "nothing has grown yet");
    const isBeyond = index >= this.#endSlots;
    if ((isBeyond && !this.store.growable) || this.#used.has(index)) {
      const why = isBeyond ? "lies beyond the store's end" : "is named twice";
      const text = `slot ${index} of store ${this.storeIndex} (${this.store.path}) ${why}`;
      throw new DiffStorageError("SLOT_INVALID", text, { path: this.store.path });
    }
    const openedSlots = Math.floor(this.store.openedBytes / this.slotBytes);
    if (isBeyond) {
      this.#holes.add(this.#endSlots, index + 1 - this.#endSlots);
      this.#endSlots = index + 1;
    }
    this.#holes.remove(index, 1);
    this.#used.add(index, 1);
    return index < openedSlots;
  }

  /** Begins to preallocate up to `maxSlots` slots: in the first hole, or at the end of the file. */
  beginGrowth(maxSlots: number): MovingRange {
    assert(this.#growing === undefined, "one growth at a time");
    assert(maxSlots > 0 && maxSlots <= this.roomSlots(maxSlots), "growth stays within the limit");
    const hole = this.#holes.findRun(0, maxSlots);
    if (hole !== undefined) this.#holes.remove(hole.first, hole.count);
    const range = hole ?? { first: this.#endSlots, count: maxSlots };
    this.#movingSlots += range.count;
    this.#growing = range;
    return range;
  }

  /** Ends a growth: the slots are ready, or unchanged. */
  endGrowth(succeeded: boolean): void {
    const range = this.#growing;
    assert(range !== undefined, "a growth is under way");
    this.#growing = undefined;
    this.#movingSlots -= range.count;
    this.#moves++;
    const extended = range.first === this.#endSlots;
    if (succeeded) {
      if (!this.#isRetired) this.#ready.add(range.first, range.count);
      if (extended) this.#endSlots += range.count;
    } else if (!extended) {
      this.#holes.add(range.first, range.count);
    }
  }

  /** Begins to punch a ready run of up to `maxSlots`; undefined if no slot is ready. */
  beginPunch(maxSlots: number): MovingRange | undefined {
    if (this.suspended) return undefined;
    const run =
      this.#ready.findRun(this.#punchCursor, maxSlots) ?? this.#ready.findRun(0, maxSlots);
    if (run === undefined) return undefined;
    this.#punchCursor = run.first + run.count;
    this.#ready.remove(run.first, run.count);
    this.#movingSlots += run.count;
    this.#moves++;
    return run;
  }

  /** Ends a punch: the slots are holes, or ready again if all of them have kept their space. */
  endPunch(range: MovingRange, keptSpace: boolean): void {
    this.#movingSlots -= range.count;
    this.#moves++;
    assert(this.#movingSlots >= 0, "punch was begun");
    if (!keptSpace) this.#holes.add(range.first, range.count);
    else if (!this.#isRetired) this.#ready.add(range.first, range.count);
  }
}
