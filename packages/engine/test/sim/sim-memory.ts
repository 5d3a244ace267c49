/**
 * Memory of an area's map, which is granted or denied when the engine asks for it. Parts without memory are full of
 * garbage, which reveals an engine that reads them.  */
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

const ENOSPC = 28;
const GARBAGE = 0x5a5a5a5a;

export class SimMemory {
  /** Slices that are asked for. */
  private readonly wanted: Set<number> = new Set();
  private readonly device: SimDevice;
  /** Slices that have memory; undefined: all. */
  private there: Set<number> | undefined;
  private readonly refused: Set<number> = new Set();

  constructor(device: SimDevice) {
    this.device = device;
  }

  get asked(): boolean {
    return this.wanted.size > 0;
  }

  /** A new map begins, or the map is gone. */
  begin(isThere: boolean): void {
    this.restart();
    this.there = isThere ? undefined : new Set();
    if (isThere) return;
    const { slices } = this.device.area!.map;
    for (let slice = 0; slice < slices.count; slice++) this.fill(slice, GARBAGE);
  }

  /** Another process begins; the file keeps its memory. */
  restart(): void {
    this.wanted.clear();
    this.refused.clear();
  }

  /** Of some slice the last answer was a denial, or all blocks are lost because of one. */
  get isRefused(): boolean {
    return this.refusedSlices().length > 0;
  }

  /** These slices. */
  refusedSlices(): number[] {
    const slices = this.device.area?.map.slices;
    const found: number[] = [];
    for (let slice = 0; slice < (slices?.count ?? 0); slice++) {
      if (this.refused.has(slice) || slices!.isLost(slice)) found.push(slice);
    }
    return found;
  }

  ask(slice: number): void {
    this.device.world.tick();
    require(!this.wanted.has(slice), () => "memory of a map asked for twice");
    this.wanted.add(slice);
  }

  answer(mayDeny: boolean): void {
    const { area, dropping, permissions, overflow, world } = this.device;
    if (!this.asked) return;
    const [first] = this.wanted;
    const slice = this.wanted.size > 1 ? world.random.pick([...this.wanted]) : first!;
    this.wanted.delete(slice);
    if (area === null || dropping) {
      this.wanted.clear();
      return;
    }
    if (mayDeny && world.random.oneIn(3)) {
      this.refused.add(slice);
      permissions.give();
      area.denyMemory(slice, ENOSPC);
      return;
    }
    if (this.there !== undefined && !this.there.has(slice)) {
      // Neighbours share pages: what they have recorded stays.
      const { slices } = area.map;
      this.there.add(slice);
      for (const { offsetBytes, lengthBytes } of slices.ranges(slice)) {
        const words = new Int32Array(this.device.areaBuffer!, offsetBytes, lengthBytes / 4);
        for (let i = 0; i < words.length; i++) if (words[i] === GARBAGE) words[i] = 0;
      }
    }
    this.refused.delete(slice);
    if (area.slots.deniedErrno === 0) overflow.begin();
    area.grantMemory(slice);
  }

  private fill(slice: number, word: number): void {
    const { area, areaBuffer } = this.device;
    for (const { offsetBytes, lengthBytes } of area!.map.slices.ranges(slice)) {
      new Int32Array(areaBuffer!, offsetBytes, lengthBytes / 4).fill(word);
    }
  }
}
