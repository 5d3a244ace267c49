// One device's part of a snapshot: its map, and the slots that it may still use.
import { assert } from "./assert.js";
import { OverflowPolicy } from "./constants.js";
import type { DiffAreaMap } from "./diff-area-map.js";
import { MapMemory } from "./map-memory.js";
import { SlotPool } from "./slot-pool.js";

export interface DiffAreaOptions {
  /** Ask for more slots when this many are left or fewer; more of them while many are used. */
  lowWaterSlots?: number;
  /** How many slots to ask for at a time to begin with. */
  wantedSlots?: number;
  /** How many to ask for at most, when they are used fast; `wantedSlots` if not given. */
  wantedSlotsMax?: number;
  /** Extents that may wait in the pool. If not given, as many as can come where each has one slot. */
  extentsMax?: number;
  /** One of OverflowPolicy; BREAK_SNAPSHOT if not given. */
  overflow?: number;
  /** BLOCK_WRITES: ticks that a write waits for room before its blocks are lost. 8 if not given. */
  blockedTicksMax?: number;
  /** The store of a slot is the slot's number without its lowest `storeShift` bits. 31: there is one. */
  storeShift?: number;
  /** Stores, 1 if not given. */
  storeCount?: number;
}

/** Extents that an area may be granted besides the one that it asked for last: used again, or unasked. */
const GRANTED_BESIDE = 64;
/** So many fit into the bits of `hungStores`. */
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
  /** Both follow the rate at which slots are used. */
  lowWaterSlots: number;
  wantedSlots: number;
  readonly blockedTicksMax: number;
  /** Writes that wait for space. While there are any, the host calls tick() again and again. */
  blockedWrites: number = 0;
  /** A write waited its whole time: blocks are lost until slots are granted. Set by the engine. */
  gaveUp: boolean = false;
  /** Bit per store: something of it is late. Set by the engine. */
  hungStores: number = 0;
  /** Set by the engine. */
  listener: AreaListener | null = null;
  /**
   * Whether copies may go behind their writes (see copies-behind.ts): if the map has places for them, and never if a
   * write can be refused for lack of space.
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

  /** I/O of the slot is late. Answers the store if that hangs from now on, else -1. For the engine. */
  noteLate(slot: number): number {
    const store = slot >>> this.storeShift;
    assert(store < this.lateIo.length, "a slot lies in no store");
    this.hungStores |= 1 << store;
    return this.lateIo[store]++ === 0 ? store : -1;
  }

  /** Late I/O of the slot was answered. Answers the store if it hangs no more, else -1. */
  noteAnswered(slot: number): number {
    const store = slot >>> this.storeShift;
    assert(this.lateIo[store] > 0, "late I/O was answered twice");
    if (--this.lateIo[store] > 0) return -1;
    this.hungStores &= ~(1 << store);
    return store;
  }

  /** What a write without room meets at this moment: one of OverflowPolicy. */
  get overflow(): number {
    return this.gaveUp ? OverflowPolicy.BREAK_SNAPSHOT : this.policy;
  }

  /** Gives the area slots firstSlot..firstSlot+count-1: an answer to requestSlots, or unasked. */
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
   * Others are short of slots: gives half of those that wait here back, at least one if there is one, and
   * asks for few again. `visit` gets each extent.
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

  /** What was refused before is refused for this reason now. Not an answer: where one is awaited, nothing changes. */
  denySlotsAnew(errno: number): void {
    if (this.slots.isRefused && !this.slots.asked) this.denySlots(errno);
  }

  /** The answer to requestMapSlice: the slice has memory. */
  grantMemory(slice: number): void {
    this.memory.grant(slice);
    if (this.slots.deniedErrno === 0) this.gaveUp = false;
    this.listener?.onSlotsAnswered(true);
  }

  /**
   * Refuses requestMapSlice. What needs it meets the overflow policy; where that loses blocks, all of the slice is
   * lost, and stays so. `errno` is positive.
   */
  denyMemory(slice: number, errno: number): void {
    this.memory.deny(slice, errno);
    this.listener?.onSlotsAnswered(false);
    this.memory.forgetDenial(slice);
  }

  /** Slots have arrived. If half of the rest is used by then, the next grant may be too late. */
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
