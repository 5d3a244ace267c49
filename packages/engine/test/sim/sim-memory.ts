/**
 * Memory of an area's map, which is granted or denied when the engine asks for it. Parts without memory are full of
 * garbage, which reveals an engine that reads them. Maps of the simulation are one slice.
 */
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

const ENOSPC = 28;
const GARBAGE = 0x5a5a5a5a;

export class SimMemory {
  asked = false;
  private readonly device: SimDevice;
  private isThere = true;
  private wasRefused = false;

  constructor(device: SimDevice) {
    this.device = device;
  }

  /** A new map begins, or the map is gone. */
  begin(isThere: boolean): void {
    this.asked = false;
    this.isThere = isThere;
    this.wasRefused = false;
    if (!isThere) this.fill(GARBAGE);
  }

  /** Another process begins; the file keeps its memory. */
  restart(): void {
    this.asked = false;
    this.wasRefused = false;
  }

  /** The last answer was a denial, or all of the map's blocks are lost because of one. */
  get isRefused(): boolean {
    return this.wasRefused || (this.device.area?.map.slices.isLost(0) ?? false);
  }

  ask(slice: number): void {
    this.device.world.tick();
    require(slice === 0, () => `slice ${slice} of a map that has one`);
    require(!this.asked, () => "memory of a map asked for twice");
    this.asked = true;
  }

  answer(mayDeny: boolean): void {
    const { area, dropping, permissions, overflow, world } = this.device;
    if (!this.asked) return;
    this.asked = false;
    if (area === null || dropping) return;
    if (mayDeny && world.random.oneIn(3)) {
      this.wasRefused = true;
      permissions.give();
      area.denyMemory(0, ENOSPC);
      return;
    }
    if (!this.isThere) this.fill(0);
    this.isThere = true;
    this.wasRefused = false;
    if (area.slots.deniedErrno === 0) overflow.begin();
    area.grantMemory(0);
  }

  private fill(word: number): void {
    const { area, areaBuffer } = this.device;
    for (const { offsetBytes, lengthBytes } of area!.map.slices.ranges(0)) {
      new Int32Array(areaBuffer!, offsetBytes, lengthBytes / 4).fill(word);
    }
  }
}
