// One device's part of a snapshot: its map, and the slots that it may still use.
import { assert } from "./assert.js";
import { BlockState, type DiffAreaMap, NO_SLOT } from "./diff-area-map.js";
import { SlotPool } from "./slot-pool.js";

export interface DiffAreaOptions {
  /** Ask for more slots when this many are left or fewer. */
  lowWaterSlots?: number;
  /** How many slots to ask for at a time. */
  wantedSlots?: number;
  /** Extents that may wait in the pool. */
  extentsMax?: number;
}

export interface ByteRange {
  offsetBytes: number;
  lengthBytes: number;
}

/** Who wants to know that slots were granted or denied: the engine that the area is attached to. */
export interface SlotListener {
  onSlotsAnswered(): void;
}

export class DiffArea {
  readonly map: DiffAreaMap;
  readonly slots: SlotPool;
  readonly lowWaterSlots: number;
  readonly wantedSlots: number;
  /** Set by the engine. */
  listener: SlotListener | null = null;

  constructor(map: DiffAreaMap, options: DiffAreaOptions = {}) {
    this.map = map;
    this.lowWaterSlots = options.lowWaterSlots ?? 64;
    this.wantedSlots = options.wantedSlots ?? 256;
    this.slots = new SlotPool(options.extentsMax ?? 64);
    assert(this.lowWaterSlots >= 0 && this.wantedSlots > 0, "slot water marks out of range");
  }

  /** Gives the area slots firstSlot..firstSlot+count-1: an answer to requestSlots, or unasked. */
  grantSlots(firstSlot: number, count: number): void {
    this.slots.grant(firstSlot, count);
    this.listener?.onSlotsAnswered();
  }

  /** Refuses requestSlots. Blocks that need a slot are lost until slots are granted again. */
  denySlots(errno: number): void {
    this.slots.deny(errno);
    this.listener?.onSlotsAnswered();
  }

  /** Ranges that could not be saved and read as EIO, in order. Cold. */
  lostRanges(): ByteRange[] {
    const ranges: ByteRange[] = [];
    const { geometry } = this.map;
    this.map.forEachTouched((chunk) => {
      if (!this.map.hasHoles(chunk)) return;
      const blocks = geometry.blocksInChunk(chunk);
      let block = 0;
      while (block < blocks) {
        const end = this.map.stateEnd(chunk, block, blocks);
        if (this.map.stateAt(chunk, block) === BlockState.LOST) {
          const offsetBytes = chunk * geometry.chunkBytes + (block << geometry.blockShift);
          const endBytes = chunk * geometry.chunkBytes + geometry.blockEndInChunk(chunk, end - 1);
          const last = ranges.at(-1);
          if (last !== undefined && last.offsetBytes + last.lengthBytes === offsetBytes) {
            last.lengthBytes = endBytes - last.offsetBytes;
          } else {
            ranges.push({ offsetBytes, lengthBytes: endBytes - offsetBytes });
          }
        }
        block = end;
      }
    });
    return ranges;
  }

  /** Calls `visit` for each slot in use: what an allocator needs after a restart. Cold. */
  forEachUsedSlot(visit: (slot: number, chunk: number) => void): void {
    this.map.forEachTouched((chunk) => {
      const slot = this.map.slotOf(chunk);
      if (slot !== NO_SLOT) visit(slot, chunk);
    });
  }
}
