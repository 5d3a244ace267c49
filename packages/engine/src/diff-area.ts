// One device's part of a snapshot: its map, and the slots that it may still use.
import { assert } from "./assert.js";
import { OverflowPolicy } from "./constants.js";
import { type DiffAreaMap, NO_SLOT } from "./diff-area-map.js";
import { type ByteRange, LostRangeScan } from "./lost-range-scan.js";
import { SlotPool } from "./slot-pool.js";

export interface DiffAreaOptions {
  /** Ask for more slots when this many are left or fewer. */
  lowWaterSlots?: number;
  /** How many slots to ask for at a time. */
  wantedSlots?: number;
  /** Extents that may wait in the pool. */
  extentsMax?: number;
  /** One of OverflowPolicy; BREAK_SNAPSHOT if not given. */
  overflow?: number;
  /** BLOCK_WRITES: ticks that a write waits for room before its blocks are lost. 8 if not given. */
  blockedTicksMax?: number;
}

/** Who wants to know what happens to an area: the engine that it is attached to. */
export interface AreaListener {
  /** Slots were granted or denied. */
  onSlotsAnswered(granted: boolean): void;
  onTick(): void;
}

export class DiffArea {
  readonly map: DiffAreaMap;
  readonly slots: SlotPool;
  readonly lowWaterSlots: number;
  readonly wantedSlots: number;
  readonly blockedTicksMax: number;
  /** Writes that wait for room. While there are any, the host calls tick() again and again. */
  blockedWrites: number = 0;
  /** A write waited its whole time: blocks are lost until slots are granted. Set by the engine. */
  gaveUp: boolean = false;
  /** Set by the engine. */
  listener: AreaListener | null = null;
  private readonly policy: number;

  constructor(map: DiffAreaMap, options: DiffAreaOptions = {}) {
    this.map = map;
    this.lowWaterSlots = options.lowWaterSlots ?? 64;
    this.wantedSlots = options.wantedSlots ?? 256;
    this.slots = new SlotPool(options.extentsMax ?? 64);
    this.policy = options.overflow ?? OverflowPolicy.BREAK_SNAPSHOT;
    this.blockedTicksMax = options.blockedTicksMax ?? 8;
    assert(this.lowWaterSlots >= 0 && this.wantedSlots > 0, "slot water marks out of range");
    assert(this.blockedTicksMax > 0, "a blocked write waits for a tick at least");
  }

  /** What a write without room meets at this moment: one of OverflowPolicy. */
  get overflow(): number {
    return this.gaveUp ? OverflowPolicy.BREAK_SNAPSHOT : this.policy;
  }

  /** Gives the area slots firstSlot..firstSlot+count-1: an answer to requestSlots, or unasked. */
  grantSlots(firstSlot: number, count: number): void {
    this.slots.grant(firstSlot, count);
    this.gaveUp = false;
    this.listener?.onSlotsAnswered(true);
  }

  /** Refuses requestSlots: until slots are granted, who needs one meets the overflow policy. */
  denySlots(errno: number): void {
    this.slots.deny(errno);
    this.listener?.onSlotsAnswered(false);
  }

  /**
   * Time goes on: blocked writes try again, and go through when they have waited `blockedTicksMax`
   * ticks. The host calls this at even intervals while `blockedWrites` is not 0.
   */
  tick(): void {
    this.listener?.onTick();
  }

  /** Ranges that could not be saved and read as EIO, in order. All at once: for maps that are small. */
  lostRanges(): ByteRange[] {
    const scan = new LostRangeScan(this.map, Number.MAX_SAFE_INTEGER);
    while (!scan.isDone) scan.step(Number.MAX_SAFE_INTEGER);
    return scan.ranges;
  }

  /** Calls `visit` for each slot in use: what an allocator needs after a restart. Cold. */
  forEachUsedSlot(visit: (slot: number, chunk: number) => void): void {
    this.map.forEachTouched((chunk) => {
      const slot = this.map.slotOf(chunk);
      if (slot !== NO_SLOT) visit(slot, chunk);
    });
  }
}
