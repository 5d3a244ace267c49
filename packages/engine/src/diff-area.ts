// One device's part of a snapshot: its map, and the slots granted to it that are still unused.
import { assert } from "./assert.js";
import { OverflowPolicy } from "./constants.js";
import type { DiffAreaMap } from "./diff-area-map.js";
import { MapMemory } from "./map-memory.js";
import { SlotPool } from "./slot-pool.js";

export interface DiffAreaOptions {
  /** Ask for more slots when this many or fewer are left; it rises while slots are used fast. */
  lowWaterSlots?: number;
  /** How many slots to ask for at a time, at first. */
  wantedSlots?: number;
  /** The most slots to ask for at a time, when they are used fast; `wantedSlots` if not given. */
  wantedSlotsMax?: number;
  /** Extents that may wait in the pool. If not given: enough for extents of one slot each. */
  extentsMax?: number;
  /** One of OverflowPolicy; BREAK_SNAPSHOT if not given. */
  overflow?: number;
  /** BLOCK_WRITES: ticks that a write waits for room before its blocks are lost. 8 if not given. */
  blockedTicksMax?: number;
  /** The store of a slot is the slot's number without its lowest `storeShift` bits. 31: there is one store. */
  storeShift?: number;
  /** Stores, 1 if not given. */
  storeCount?: number;
}

/** Extents that an area may be granted besides those of its last request: slots used again, or granted unasked. */
const GRANTED_BESIDE = 64;
/** As many as `hungStores` has bits. */
const STORES_MAX = 31;

/** Listens to an area: the engine that it is attached to. */
export interface AreaListener {
  /** Slots, or memory of the map, were granted or denied. */
  onSlotsAnswered(granted: boolean): void;
  onTick(): void;
}

export class DiffArea {
  readonly map: DiffAreaMap;
  readonly slots: SlotPool;
  readonly memory: MapMemory;
  /** Both adapt to the rate at which slots are used. */
  lowWaterSlots: number;
  wantedSlots: number;
  readonly blockedTicksMax: number;
  /** Writes that wait for space. While it is not 0, the host calls tick() at even intervals. */
  blockedWrites: number = 0;
  /** A write has waited its full time: blocks are lost until slots are granted. Set by the engine. */
  gaveUp: boolean = false;
  /** A bit per store: it has late I/O. Set by the engine. */
  hungStores: number = 0;
  /** Set by the engine. */
  listener: AreaListener | null = null;
  /**
   * Whether copies may go behind their writes (see copies-behind.ts): only if the map has places for them, and no write
   * can be refused for lack of space.
   */
  readonly copiesBehind: boolean;
  private readonly lowWaterSlotsFirst: number;
  private readonly wantedSlotsFirst: number;
  private readonly wantedSlotsMax: number;
  private readonly policy: number;
  private readonly storeShift: number;
  private readonly allStores: number;
  /** Late copies and runs, by store. */
  private readonly lateIo: Int32Array;

  constructor(map: DiffAreaMap, options: DiffAreaOptions = {}) {
    this.map = map;
    this.memory = new MapMemory(map.slices);
    this.lowWaterSlots = options.lowWaterSlots ?? 64;
    this.wantedSlots = options.wantedSlots ?? 256;
    this.wantedSlotsMax = options.wantedSlotsMax ?? this.wantedSlots;
    this.lowWaterSlotsFirst = this.lowWaterSlots;
    this.wantedSlotsFirst = this.wantedSlots;
    this.storeShift = options.storeShift ?? 31;
    const storeCount = options.storeCount ?? 1;
    const lowWaterMax = Math.max(this.lowWaterSlots, this.wantedSlotsMax >> 1);
    const extentsMax = options.extentsMax ?? storeCount * (lowWaterMax + GRANTED_BESIDE);
    this.slots = new SlotPool(extentsMax, this.storeShift, storeCount);
    this.lateIo = new Int32Array(storeCount);
    this.allStores = 2 ** storeCount - 1;
    this.policy = options.overflow ?? OverflowPolicy.BREAK_SNAPSHOT;
    const hasPlaces = map.copyRecords !== undefined;
    this.copiesBehind = hasPlaces && this.policy === OverflowPolicy.BREAK_SNAPSHOT;
    this.blockedTicksMax = options.blockedTicksMax ?? 8;
    assert(this.lowWaterSlots >= 0 && this.wantedSlots > 0, "slot water marks out of range");
    assert(this.wantedSlotsMax >= this.wantedSlots, "an area wants more than at most");
    assert(this.blockedTicksMax > 0, "a blocked write waits for a tick at least");
    assert(storeCount > 0 && storeCount <= STORES_MAX, "1 to 31 stores");
  }

  /** True if the slot lies in a store that hangs. */
  isHung(slot: number): boolean {
    return this.hungStores !== 0 && ((this.hungStores >>> (slot >>> this.storeShift)) & 1) === 1;
  }

  /** The last slot of the store that the slot lies in. */
  lastSlotBeside(slot: number): number {
    return (slot | (2 ** this.storeShift - 1)) >>> 0;
  }

  /** True if no store answers. */
  get isAllHung(): boolean {
    return this.hungStores === this.allStores;
  }

  /** Notes late I/O of the slot. Returns the store if it hangs from now on, else -1. For the engine. */
  noteLate(slot: number): number {
    const store = slot >>> this.storeShift;
    assert(store < this.lateIo.length, "a slot lies in no store");
    this.hungStores |= 1 << store;
    return this.lateIo[store]++ === 0 ? store : -1;
  }

  /** Notes that late I/O of the slot was answered. Returns the store if it hangs no longer, else -1. */
  noteAnswered(slot: number): number {
    const store = slot >>> this.storeShift;
    assert(this.lateIo[store] > 0, "late I/O was answered twice");
    if (--this.lateIo[store] > 0) return -1;
    this.hungStores &= ~(1 << store);
    return store;
  }

  /** The overflow policy for a write that finds no room now: one of OverflowPolicy. */
  get overflow(): number {
    return this.gaveUp ? OverflowPolicy.BREAK_SNAPSHOT : this.policy;
  }

  /** Gives the area slots firstSlot..firstSlot+count-1, as the answer to requestSlots, or unasked. */
  grantSlots(firstSlot: number, count: number): void {
    if (this.slots.asked) this.followRate();
    try {
      this.slots.grant(firstSlot, count);
    } catch (error) {
      this.listener?.onSlotsAnswered(false);
      throw error;
    }
    this.gaveUp = false;
    this.listener?.onSlotsAnswered(true);
  }

  /**
   * Other areas are short of slots: gives back half of the unused slots, at least one if there is one, and asks for few
   * at a time again. Calls `visit` with each extent.
   */
  giveBackSlots(visit: (firstSlot: number, count: number) => void): void {
    this.lowWaterSlots = this.lowWaterSlotsFirst;
    this.wantedSlots = this.wantedSlotsFirst;
    this.slots.giveBack(Math.ceil(this.slots.freeCount / 2), visit);
  }

  /** Refuses requestSlots: until slots are granted, a request that needs one meets the overflow policy. */
  denySlots(errno: number): void {
    this.slots.deny(errno);
    this.listener?.onSlotsAnswered(false);
  }

  /** Changes the reason of an earlier denial. Not an answer: if one is awaited, nothing changes. */
  updateDenial(errno: number): void {
    if (this.slots.isRefused && !this.slots.asked) this.denySlots(errno);
  }

  /** The answer to requestMapSlice: the slice has memory. */
  grantMemory(slice: number): void {
    this.memory.grant(slice);
    if (this.slots.deniedErrno === 0) this.gaveUp = false;
    this.listener?.onSlotsAnswered(true);
  }

  /**
   * Refuses requestMapSlice. Requests that need the slice meet the overflow policy; if that loses blocks, the whole
   * slice is lost for good. `errno` is positive.
   */
  denyMemory(slice: number, errno: number): void {
    this.memory.deny(slice, errno);
    this.listener?.onSlotsAnswered(false);
    this.memory.forgetDenial(slice);
  }

  /** Slots have arrived. Asks for more, and earlier, if half of the low-water mark was used meanwhile. */
  private followRate(): void {
    if (this.slots.freeCount > this.lowWaterSlots >> 1) return;
    this.wantedSlots = Math.min(this.wantedSlots * 2, this.wantedSlotsMax);
    this.lowWaterSlots = Math.max(this.lowWaterSlots, this.wantedSlots >> 1);
  }

  /**
   * A tick: blocked writes try again, and go through when they have waited `blockedTicksMax`
   * ticks. The host calls this at even intervals while `blockedWrites` is not 0.
   */
  tick(): void {
    this.listener?.onTick();
  }
}
