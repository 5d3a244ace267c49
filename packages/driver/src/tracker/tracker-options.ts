/** How a device is attached and detached, and what a tracker is made of. */
import type { AreaId, SleepingArea } from "@blksnap/data-plane";
import type { TrackerGeometry } from "@blksnap/engine";
import type { Splice } from "@blksnap/linux-block";
import type { BackingFile } from "@blksnap/ublk";
import type { MappedMemory } from "@blksnap/uring";
import type { MapFile } from "../records/state-directory.js";
import type { JournalOptions, TrackerJournal } from "./tracker-journal.js";

export interface AttachOptions extends JournalOptions {
  readonly onFront?: (number: number | null) => void;
  /** The diff area of the persistent snapshot that it is in. */
  readonly area?: SleepingArea;
  /** The original's path, if that is not its name. */
  readonly openAt?: string;
  /** For a live attach: the node that the front will be under. */
  readonly splice?: Splice;
  /** Called when nothing is left that can hang, before the front is made; throws if the caller has given up. */
  readonly onReady?: () => void;
}

export interface DetachOptions {
  /** Removes the records of a persistent tracker. */
  readonly forget?: boolean;
  /** The next daemon is to attach a persistent tracker automatically. */
  readonly attachAgain?: boolean;
  /** The system goes down, and no program is left that could write to the original. */
  readonly closing?: boolean;
  /** Continue even if the front's page cache cannot be written to the original. */
  readonly giveUp?: boolean;
  /** Called before the original is closed, which can take a while: its descriptor may be another file's from then on. */
  readonly onClosing?: () => void;
}

/** What an earlier daemon has left of a tracker's diff area. */
export interface LeftArea {
  /** Undefined if it cannot continue. */
  readonly sleeping?: SleepingArea | undefined;
  /** Areas that a later boot could find on the medium: all are lost except the one that continues. */
  readonly kept: readonly AreaId[];
}

/** The parts of a tracker before it has a front. */
export interface TrackerParts {
  readonly id: number;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly reactor: number;
  readonly cbtFile: MapFile;
  readonly cbtMemory: MappedMemory;
  readonly journal: TrackerJournal | undefined;
  readonly splice: Splice | undefined;
}
