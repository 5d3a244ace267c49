/** What the I/O of a diff area needs. */
import type { TrackerEngine } from "@blksnap/engine";
import type { Reactor } from "@blksnap/uring";
import type { PlacesOfMap } from "./copy-places.js";
import type { CopyDurations } from "./durations.js";
import type { IoTicker } from "./io-ticker.js";
import type { JournalSetup, LogNeed } from "./journal-io.js";

export interface AreaIoOptions {
  readonly reactor: Reactor;
  readonly ticker: IoTicker;
  readonly engine: TrackerEngine;
  /** Receives the beginning and the end of each copy. */
  readonly copyDurations: CopyDurations;
  /** Index of the original among the ring's registered files. */
  readonly originalIndex: number;
  readonly storeFds: readonly number[];
  readonly frontDepth: number;
  /** Tags of the image's device; those of NBD follow. */
  readonly imageDepth: number;
  readonly frontWindowBytes: number;
  readonly imageWindowBytes: number;
  readonly slotBytes: number;
  /** Undefined if the map has no places. */
  readonly places?: PlacesOfMap | undefined;
  /** Undefined unless the snapshot is persistent. */
  readonly journal: AreaJournalSetup | undefined;
}

export interface AreaJournalSetup {
  readonly setup: JournalSetup;
  readonly syncFds: readonly number[];
  readonly onFault: (errno: number) => void;
  readonly onLow: (need: LogNeed) => void;
}
