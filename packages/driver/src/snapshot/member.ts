import type { RecoverableDevice } from "@blksnap/ublk";
import type { AreaJournalFile } from "../records/area-journal-file.js";
import type { MapFile } from "../records/state-directory.js";
import type { Tracker } from "../tracker/tracker.js";

/** A device of a snapshot. */
export interface Member {
  readonly tracker: Tracker;
  /** The area's map; from take on. */
  map: MapFile | undefined;
  /** Number of the image's device; known before the image lives. */
  imageNumber: number | undefined;
  image: RecoverableDevice | undefined;
  imageLink: string | undefined;
  /** Of a persistent snapshot, from take on. */
  journal: AreaJournalFile | undefined;
  /** Id of an area that was closed, of which a store has not answered everything. */
  lateArea: number | null;
}
