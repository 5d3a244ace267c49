// The diff storage of the simulation: slots full of garbage, and who they belong to.
import { garbage } from "./content.js";
import type { Random } from "./random.js";
import { require } from "./violation.js";

export class SimStore {
  readonly slotSectors: number;
  private readonly data: Uint32Array[] = [];
  private readonly owner: number[] = [];
  private readonly free: number[] = [];

  constructor(slotSectors: number) {
    this.slotSectors = slotSectors;
  }

  /** A slot's sectors. It must belong to `device`. */
  slot(slot: number, device: number): Uint32Array {
    require(this.owner[slot] === device, () => `device ${device} uses slot ${slot} of another`);
    return this.data[slot];
  }

  /** Up to `wanted` slots in a row for `device`: [first, count]. */
  grant(device: number, wanted: number, random: Random): [number, number] {
    if (this.free.length > 0 && !random.oneIn(4)) {
      const slot = this.free.splice(random.below(this.free.length), 1)[0];
      this.owner[slot] = device;
      return [slot, 1];
    }
    const first = this.data.length;
    for (let slot = first; slot < first + wanted; slot++) {
      this.data[slot] = this.soil(new Uint32Array(this.slotSectors));
      this.owner[slot] = device;
    }
    return [first, wanted];
  }

  release(slot: number, device: number): void {
    require(this.owner[slot] === device, () => `device ${device} frees slot ${slot} of another`);
    this.owner[slot] = -1;
    this.soil(this.data[slot]);
    this.free.push(slot);
  }

  /** Takes back all slots of `device` but those in `keep`. */
  releaseAll(device: number, keep: Set<number>): void {
    for (let slot = 0; slot < this.data.length; slot++) {
      if (this.owner[slot] === device && !keep.has(slot)) this.release(slot, device);
    }
  }

  private soil(data: Uint32Array): Uint32Array {
    return data.fill(garbage());
  }
}
