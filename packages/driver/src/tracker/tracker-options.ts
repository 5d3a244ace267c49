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
  /** The diff area of a persistent snapshot that it is in. */
  readonly area?: SleepingArea;
  /** Where the original is, if not at its name. */
  readonly openAt?: string;
  /** Of a live attach: the front is to stand under this node. */
  readonly splice?: Splice;
  /** Called when all that can hang is done, before the front is made; throws where the caller gave up. */
  readonly onReady?: () => void;
}

export interface DetachOptions {
  /** Keep nothing of a persistent tracker. */
  readonly forget?: boolean;
  /** The next daemon is to attach a persistent tracker by itself. */
  readonly attachAgain?: boolean;
  /** The system goes down, and no program is left that could write to the original. */
  readonly closing?: boolean;
  /** Continue when what is in the front's page cache cannot be written to the original. */
  readonly giveUp?: boolean;
}

/** What an earlier daemon has left of a tracker's diff area. */
export interface LeftArea {
  /** Undefined where it cannot continue. */
  readonly sleeping?: SleepingArea | undefined;
  /** Areas that a later boot could find on the medium: they are lost but for the one that continues. */
  readonly kept: readonly AreaId[];
}

/** What a tracker is made of before it has a front. */
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
