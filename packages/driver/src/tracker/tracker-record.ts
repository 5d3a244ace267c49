/** The record of a tracker in the state directory. */
import type { AreaId } from "@blksnap/data-plane";
import type { TrackerGeometry } from "@blksnap/engine";
import { readMarks, type Splice } from "@blksnap/linux-block";
import type { BackingFile } from "@blksnap/ublk";
import type { NumberedDevice } from "../frontend/frontend.js";
import { StateFile } from "../records/file-names.js";
import { ZERO_COPY_VERSION } from "../records/record-format.js";
import type { TrackerRecord } from "../records/records.js";
import type { StateDirectory } from "../records/state-directory.js";

export interface RecordParts {
  readonly id: number;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  /** Its record in the persistent directory, even if that could not be kept: the next daemon starts it over. */
  readonly recordUuid: string | undefined;
  readonly splice: Splice | undefined;
}

/** What the last snapshot of a tracker has lost. */
export interface Loss {
  /** Negative errno of the first lost block, or of the image as a whole; 0 while all is well. */
  readonly errorCode: number;
  /** The area that has lost it; null, too, if an older daemon has not recorded it. */
  readonly area: AreaId | null;
  /** All of it is in the area's journal: it was restored with that after a reboot. */
  readonly isKept?: true;
}

export const NO_LOSS: Loss = { errorCode: 0, area: null };

export function lossOn({ errorCode, lostArea, isLossKept }: TrackerRecord): Loss {
  return { errorCode, area: lostArea ?? null, ...(isLossKept && { isKept: isLossKept }) };
}

/** @throws ControlError OUT_OF_MEMORY */
export function writeTrackerRecord(
  state: StateDirectory,
  parts: RecordParts,
  { id: front, hasZeroCopy }: NumberedDevice,
  { errorCode, area, isKept }: Loss = NO_LOSS,
): void {
  const { id, identity, geometry, recordUuid: uuid, splice } = parts;
  const marks = readMarks(identity.replace("block:", ""));
  const record: TrackerRecord = {
    id,
    device: parts.backing.path,
    identity,
    ...(marks === undefined ? {} : { marks }),
    front,
    geometry,
    errorCode,
    ...(area === null ? {} : { lostArea: area }),
    ...(isKept && { isLossKept: isKept }),
    ...(uuid === undefined ? {} : { uuid }),
    ...(splice === undefined ? {} : { live: splice.node }),
  };
  const version = hasZeroCopy ? ZERO_COPY_VERSION : undefined;
  state.writeRecord(StateFile.trackerRecord.name(id), record, version);
}
