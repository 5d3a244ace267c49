// The diff storage of the simulation: stores of slots full of garbage, and the owners of the slots. A hung store still
// moves data, but does not answer.
import { garbage } from "./content.js";
import type { Random } from "./random.js";
import { require } from "./violation.js";

export const STORES = 2;
export const STORE_SHIFT = 20;
/** When areas ask for slots, and how many may wait there. */
export const WATER_MARKS = { lowWaterSlots: 2, wantedSlots: 4, wantedSlotsMax: 16, extentsMax: 32 };

export class SimStore {
  readonly slotSectors: number;
  /** Bit per store. */
  hung = 0;
  private readonly data: Map<number, Uint32Array> = new Map();
  private readonly owner: Map<number, number> = new Map();
  private readonly free: number[][] = Array.from({ length: STORES }, () => []);
  private readonly count: number[] = new Array(STORES).fill(0);

  constructor(slotSectors: number) {
    this.slotSectors = slotSectors;
  }

  isHung(slot: number): boolean {
    return slot >= 0 && ((this.hung >> (slot >> STORE_SHIFT)) & 1) === 1;
  }

  /** A slot's sectors. It must belong to `device`. */
  slot(slot: number, device: number): Uint32Array {
    const isOwner = this.owner.get(slot) === device;
    require(isOwner, () => `device ${device} uses slot ${slot} of another`);
    return this.data.get(slot)!;
  }

  /** Up to `wanted` consecutive slots for `device`, of no store in `avoid`: [first, count]. */
  grant(device: number, wanted: number, random: Random, avoid: number): [number, number] {
    const stores = [...this.free.keys()].filter((store) => ((avoid >> store) & 1) === 0);
    const store = random.pick(stores.length > 0 ? stores : [...this.free.keys()]);
    const free = this.free[store];
    if (free.length > 0 && !random.oneIn(4)) {
      const slot = free.splice(random.below(free.length), 1)[0];
      this.owner.set(slot, device);
      return [slot, 1];
    }
    const first = (store << STORE_SHIFT) + this.count[store];
    this.count[store] += wanted;
    for (let slot = first; slot < first + wanted; slot++) {
      this.data.set(slot, this.soil(new Uint32Array(this.slotSectors)));
      this.owner.set(slot, device);
    }
    return [first, wanted];
  }

  /** Truncates a store: the content of its last slots is gone. Returns the first of them, or -1. */
  cut(random: Random): number {
    const store = random.below(STORES);
    if (this.count[store] === 0) return -1;
    const first = (store << STORE_SHIFT) + random.below(this.count[store]);
    const end = (store << STORE_SHIFT) + this.count[store];
    for (let slot = first; slot < end; slot++) this.soil(this.data.get(slot)!);
    return first;
  }

  release(slot: number, device: number): void {
    const isOwner = this.owner.get(slot) === device;
    require(isOwner, () => `device ${device} frees slot ${slot} of another`);
    this.owner.delete(slot);
    this.soil(this.data.get(slot)!);
    this.free[slot >> STORE_SHIFT].push(slot);
  }

  /** Takes back all slots of `device` except those in `keep`. */
  releaseAll(device: number, keep: Set<number>): void {
    for (const [slot, owner] of [...this.owner]) {
      if (owner === device && !keep.has(slot)) this.release(slot, device);
    }
  }

  private soil(data: Uint32Array): Uint32Array {
    return data.fill(garbage());
  }
}
