import type { AreaId } from "@blksnap/data-plane";
import type { RecoverableDevice } from "@blksnap/ublk";
import type { AreaJournalFile } from "../records/area-journal-file.js";
import type { MapFile } from "../records/state-directory.js";
import type { Tracker } from "../tracker/tracker.js";

/** A diff area, as the main thread knows it. */
export interface MemberArea {
  readonly id: AreaId;
  readonly map: MapFile;
}

/**
 * Whether the member's area has lost old data. A daemon before has not said which area it was that did: then
 * it is the one that there is.
 */
export function hasLost({
  tracker: { loss },
  area,
}: {
  readonly tracker: Pick<Tracker, "loss">;
  readonly area: Pick<MemberArea, "id"> | undefined;
}): boolean {
  return area !== undefined && loss.errorCode !== 0 && (loss.area ?? area.id) === area.id;
}

/** A device of a snapshot. */
export interface Member {
  readonly tracker: Tracker;
  /** From take on. */
  area: MemberArea | undefined;
  /** Number of the image's device; known before the image lives. */
  imageNumber: number | undefined;
  image: RecoverableDevice | undefined;
  imageLink: string | undefined;
  /** That of the area, in a persistent snapshot. */
  journal: AreaJournalFile | undefined;
  /** An area that was closed, of which a store has not answered everything. */
  lateArea: AreaId | null;
}
