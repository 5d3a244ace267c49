/**
 * The memory of a new area's map, with places of copies after it if there is enough memory. The places are populated in
 * slices, between other work of the reactor.
 *
 * ```
 *   map the file, with places ─▶ populate 256 KiB ─ turn ─▶ populate 256 KiB ─ … ─▶ the area is made in it
 *                ▲                        └─ there is no memory
 *                └──── shorter ones, or none ────┘
 * ```
 */
import { ftruncateSync } from "node:fs";
import { type CopyPlaces, copyPlacesBytes, type Geometry } from "@blksnap/engine";
import { assert, MappedMemory } from "@blksnap/uring";
import { growForPlaces } from "./copy-places.js";
import type { MapFileRef } from "./messages.js";
import { SLICE_BYTES } from "./queue-memory.js";

export class NewMap {
  readonly fd: number;
  readonly geometry: Geometry;
  readonly #file: MapFileRef;
  readonly #wanted: readonly CopyPlaces[];
  #nextWanted = 0;
  #places: CopyPlaces | undefined;
  #memory: MappedMemory | undefined;
  /** How far the memory is populated, and how far it is to be. */
  #doneBytes = 0;
  #endBytes = 0;
  #isHandedOver = false;
  #isGivenUp = false;

  /**
   * @param file has memory as far as firstMapBytes() says
   * @param wanted alternatives for its places: it gets the first for which there is memory
   */
  constructor(file: MapFileRef, geometry: Geometry, wanted: readonly CopyPlaces[] = []) {
    this.fd = file.fd;
    this.geometry = geometry;
    this.#file = file;
    this.#wanted = wanted;
  }

  /** The places that it has got. */
  get places(): CopyPlaces | undefined {
    return this.#places;
  }

  /** Populates a slice. Returns true if there is more. @throws UringError MAP_FAILED; Error once it is given up */
  populateSlice(): boolean {
    if (this.#isGivenUp) throw new Error("the area was given up before it was made");
    this.#memory ??= this.#map();
    const sliceBytes = Math.min(SLICE_BYTES, this.#endBytes - this.#doneBytes);
    if (sliceBytes > 0 && !this.#memory.populate(this.#doneBytes, sliceBytes)) this.#doWithout();
    else this.#doneBytes += sliceBytes;
    return this.#memory === undefined || this.#doneBytes < this.#endBytes;
  }

  /** Passes the mapping to the caller, who unmaps it. Call it after populateSlice() has returned false. */
  handOver(): MappedMemory {
    assert(this.#memory !== undefined, "a map has no memory");
    this.#isHandedOver = true;
    return this.#memory;
  }

  /** Unmaps it, unless it has been handed over. */
  giveUp(): void {
    this.#isGivenUp = true;
    if (!this.#isHandedOver) this.#memory?.unmap();
  }

  #map(): MappedMemory {
    const { fd, lengthBytes } = this.#file;
    for (const places of this.#wanted.slice(this.#nextWanted)) {
      this.#nextWanted++;
      const grown = growForPlaces(this.#file, this.geometry, places);
      if (grown === undefined) continue;
      try {
        const memory = MappedMemory.file(fd, 0, grown.lengthBytes);
        this.#places = places;
        this.#endBytes = grown.lengthBytes;
        this.#doneBytes = grown.lengthBytes - copyPlacesBytes(places);
        return memory;
      } catch {
        ftruncateSync(fd, lengthBytes);
      }
    }
    return MappedMemory.file(fd, 0, lengthBytes);
  }

  #doWithout(): void {
    this.#memory?.unmap();
    this.#memory = undefined;
    this.#places = undefined;
    this.#doneBytes = 0;
    this.#endBytes = 0;
    ftruncateSync(this.fd, this.#file.lengthBytes);
  }
}
