/**
 * The first lost ranges of a device's area, for callers: found in slices, and cached until something is lost or
 * overwritten. The total of lost blocks is counted as it changes.
 */
import { type DiffAreaMap, LostRangeScan } from "@blksnap/engine";
import type { LostRange } from "./messages.js";
import type { Slices } from "./slices.js";
import { REACTOR_TURN_UNITS } from "./turns.js";

/** Most ranges to return; there may be a million. */
const LOST_RANGES_TOLD = 100;

type OnRanges = (ranges: readonly LostRange[]) => void;

export class LostRanges {
  readonly #slices: Slices;
  #map: DiffAreaMap | undefined;
  #found: readonly LostRange[] = [];
  /** LossCount.version at the last search. */
  #version = -1;
  /** Callers that the present scan answers: it began after their call. */
  #asked: OnRanges[] = [];
  /** Later callers: they may know of a loss that the present scan has passed. */
  #waiting: OnRanges[] = [];
  #isScanning = false;

  constructor(slices: Slices) {
    this.#slices = slices;
  }

  /** Sets the area, or none: waiting callers get what was found. */
  use(map: DiffAreaMap | undefined): void {
    this.#map = map;
    this.#version = -1;
    this.#found = [];
    this.#notifyAll();
  }

  read(callback: OnRanges): void {
    const losses = this.#map?.losses;
    if (losses === undefined || losses.ranges === 0) callback([]);
    else if (losses.version === this.#version) callback(this.#found);
    else {
      this.#waiting.push(callback);
      this.#scan(this.#map as DiffAreaMap);
    }
  }

  #scan(map: DiffAreaMap): void {
    if (this.#isScanning) return;
    this.#isScanning = true;
    this.#asked = this.#waiting.splice(0);
    const { version } = map.losses;
    const scan = new LostRangeScan(map, LOST_RANGES_TOLD);
    this.#slices.run(() => {
      if (this.#map !== map) return false;
      scan.step(REACTOR_TURN_UNITS);
      if (!scan.isDone) return true;
      this.#found = scan.ranges;
      this.#version = version;
      this.#onScanned(map);
      return false;
    });
  }

  #onScanned(map: DiffAreaMap): void {
    this.#isScanning = false;
    for (const callback of this.#asked.splice(0)) callback(this.#found);
    if (map.losses.version === this.#version) this.#notifyAll();
    else if (this.#waiting.length > 0) this.#scan(map);
  }

  #notifyAll(): void {
    this.#isScanning = false;
    for (const callback of [...this.#asked.splice(0), ...this.#waiting.splice(0)])
      callback(this.#found);
  }
}
