/** Requests for memory for slices of an area's map, and their answers. */
import type { AreaMapSlices } from "./area-map-slices.js";
import { assert } from "./assert.js";

export class MapMemory {
  private readonly slices: AreaMapSlices;
  /** By slice: 1 while an answer is awaited. */
  private readonly asked: Uint8Array;
  /** By slice: errno of the last answer if that was a denial, else 0. */
  private readonly denied: Uint8Array;

  constructor(slices: AreaMapSlices) {
    this.slices = slices;
    this.asked = new Uint8Array(slices.count);
    this.denied = new Uint8Array(slices.count);
  }

  /** True if the host is to be asked for the slice; it then counts as asked. */
  mayAsk(slice: number): boolean {
    if (this.asked[slice] === 1) return false;
    this.asked[slice] = 1;
    return true;
  }

  /** The positive errno of the slice's denial, until the next answer; 0 if it was not denied. */
  deniedErrno(slice: number): number {
    return this.denied[slice];
  }

  grant(slice: number): void {
    this.answered(slice, 0);
    this.slices.noteMemory(slice);
  }

  deny(slice: number, errno: number): void {
    assert(errno > 0 && errno < 256, "a denial needs a positive errno");
    this.answered(slice, errno);
  }

  /** All waiting requests have seen the denial. Unless one has asked again, it does not apply to later requests. */
  forgetDenial(slice: number): void {
    if (this.asked[slice] === 0) this.denied[slice] = 0;
  }

  private answered(slice: number, errno: number): void {
    assert(this.asked[slice] === 1, "an answer for a slice that was not asked for");
    this.asked[slice] = 0;
    this.denied[slice] = errno;
  }
}
