/** What devices of the simulation get from it. */
import type { TrackerEngine } from "@blksnap/engine";
import type { Random } from "./random.js";
import type { SimIo } from "./sim-io.js";
import type { SimStore } from "./store.js";

/** What a device needs from the world around it. */
export interface SimWorld {
  readonly random: Random;
  readonly store: SimStore;
  trace(text: () => string): void;
  /** Called by every callback: a crash in the middle of an event happens here. */
  tick(): void;
  addIo(io: SimIo): void;
  ios(): readonly SimIo[];
  /** Changes an engine right after it was made: where a test plants its faults. */
  readonly sabotage: (engine: TrackerEngine) => void;
}

export interface SimShape {
  chunkShift: number;
  blockShift: number;
  capacitySectors: number;
  cbtBlockShift: number;
  copiesMax: number;
  runsMax: number;
  windowBlocks: number;
  /** Size of a place; longer copies go before their write. */
  placeBlocks: number;
  /** The most blocks of most writes. */
  writeBlocks: number;
  /** OverflowPolicy of all areas. */
  overflow: number;
  /** Maps have no memory at first. */
  isSparse: boolean;
  /** Copies may go behind their writes. */
  hasPlaces: boolean;
  /** One write in so many begins a sequence; 0: none does. */
  sequenceEvery: number;
  /** Half of the requests go anywhere, not to the hot part. */
  isCold: boolean;
}
