/** A tracker on record in the state directory. */
import type { TrackerGeometry } from "@blksnap/engine";
import { readMarks } from "@blksnap/linux-block";
import type { BackingFile } from "@blksnap/ublk";
import { StateFile } from "../records/file-names.js";
import type { TrackerRecord } from "../records/records.js";
import type { StateDirectory } from "../records/state-directory.js";

export interface RecordParts {
  readonly id: number;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly uuid: string | undefined;
}

/** @param front number of the front @throws ControlError OUT_OF_MEMORY */
export function writeTrackerRecord(
  state: StateDirectory,
  parts: RecordParts,
  front: number,
  errorCode: number,
): void {
  const { id, identity, geometry, uuid } = parts;
  const marks = readMarks(identity.replace("block:", ""));
  const record: TrackerRecord = {
    id,
    device: parts.backing.path,
    identity,
    ...(marks === undefined ? {} : { marks }),
    front,
    geometry,
    errorCode,
    ...(uuid === undefined ? {} : { uuid }),
  };
  state.writeRecord(StateFile.trackerRecord.name(id), record);
}
