/**
 * Memory of an area's map that comes when it is asked for, or is refused. What has no memory is full of garbage:
 * an engine that looks at it is found by what it makes of that. Maps of the simulation are one slice.
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

  /** A new map begins, or none is there any more. */
  begin(isThere: boolean): void {
    this.asked = false;
    this.isThere = isThere;
    this.wasRefused = false;
    if (!isThere) this.fill(GARBAGE);
  }

  /** Another process begins; what the file has it keeps. */
  restart(): void {
    this.asked = false;
    this.wasRefused = false;
  }

  /** The last answer was no, or all of the map's blocks are lost for that. */
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
