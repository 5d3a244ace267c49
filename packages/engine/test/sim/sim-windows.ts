/** The copy windows of a simulated device. Those of its front are the places of its area's map: they outlive the process. */
import { BufferOwner, type CopyTable, type Geometry } from "@blksnap/engine";
import { garbage } from "./content.js";
import { FRONT_DEPTH } from "./front-state.js";
import { IMAGE_DEPTH } from "./image-side.js";

export class SimWindows {
  private readonly front: Uint32Array[] = [];
  private readonly image: Uint32Array[];
  /** The front's windows before any I/O is late, and those of the next process. */
  private places: readonly Uint32Array[] = [];
  private readonly frontLength: number;

  constructor({ blockBytes }: Geometry, frontBlocks: number) {
    const blockSectors = blockBytes / 512;
    this.frontLength = frontBlocks * blockSectors;
    this.image = Array.from({ length: IMAGE_DEPTH }, () => soiled(2 * blockSectors));
    this.begin();
  }

  /** A new area has its own places. */
  begin(): void {
    this.places = Array.from({ length: FRONT_DEPTH }, () => soiled(this.frontLength));
    this.restart();
  }

  /** A new process uses the places of the area's map. */
  restart(): void {
    for (const [tag, place] of this.places.entries()) this.front[tag] = place;
  }

  of({ bufferOwner, bufferTag }: CopyTable, copy: number): Uint32Array {
    return this.allOf(bufferOwner[copy]!)[bufferTag[copy]!]!;
  }

  /** Late I/O keeps the window: its tag gets another. */
  replace({ bufferOwner, bufferTag }: CopyTable, copy: number): void {
    const windows = this.allOf(bufferOwner[copy]!);
    const tag = bufferTag[copy]!;
    windows[tag] = soiled(windows[tag]!.length);
  }

  private allOf(owner: number): Uint32Array[] {
    return owner === BufferOwner.FRONT ? this.front : this.image;
  }
}

function soiled(length: number): Uint32Array {
  return new Uint32Array(length).fill(garbage());
}
