/** A tracker's map and size on the main thread: both are exchanged when its original grows. */
import { CbtMap, type TrackerGeometry } from "@blksnap/engine";
import type { MapFile, StateDirectory } from "../records/state-directory.js";
import type { CbtFile } from "./cbt-file.js";

export class TrackerMap {
  geometry: TrackerGeometry;
  cbt: CbtMap;
  file: MapFile;
  #memory: CbtFile["cbtMemory"];

  constructor({ geometry, cbtFile, cbtMemory }: CbtFile & { readonly geometry: TrackerGeometry }) {
    this.geometry = geometry;
    this.cbt = CbtMap.open(cbtMemory.buffer);
    this.file = cbtFile;
    this.#memory = cbtMemory;
  }

  /** Its memory was given back. */
  get isGone(): boolean {
    return this.#memory.buffer.byteLength === 0;
  }

  /** What still reads the map before finds that it is gone. */
  exchange({ cbtFile, cbtMemory }: CbtFile, cbt: CbtMap, geometry: TrackerGeometry): void {
    const before = this.#memory;
    this.geometry = geometry;
    this.cbt = cbt;
    this.file = cbtFile;
    this.#memory = cbtMemory;
    before.unmap();
  }

  async end(state: StateDirectory): Promise<void> {
    this.#memory.unmap();
    await state.removeMap(this.file);
  }
}
