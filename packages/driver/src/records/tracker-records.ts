/** The records of persistent trackers on the medium; their journals are separate. */
import {
  compareIdentity,
  type EarlierTracking,
  type PersistedIdentity,
} from "@blksnap/linux-block";
import { KeptFile } from "./file-names.js";
import type { PersistentDirectory } from "./persistent-directory.js";

export interface PersistentTrackerRecord {
  readonly uuid: string;
  /** Path of the original. */
  readonly device: string;
  /** Attach it again when the daemon starts. */
  readonly attached: boolean;
  readonly tracking: EarlierTracking;
  /** log2 of the chunks of its diff areas. */
  readonly chunkShift: number;
}

/** The record of the same device, or else the one of the same path. */
export function earlierRecord(
  records: readonly PersistentTrackerRecord[],
  path: string,
  facts: PersistedIdentity,
  uuid: string | undefined,
): PersistentTrackerRecord | undefined {
  if (uuid !== undefined) return records.find((record) => record.uuid === uuid);
  return (
    records.find(({ tracking }) => compareIdentity(tracking.identity, facts.identity) === "same") ??
    records.find(({ device }) => device === path)
  );
}

/** All usable records of trackers, or those whose names begin with `prefix`. */
export async function trackerRecords(
  directory: PersistentDirectory,
  onProblem?: (name: string, problem: string) => void,
  prefix: string = KeptFile.trackerRecord.prefix,
): Promise<PersistentTrackerRecord[]> {
  const records: PersistentTrackerRecord[] = [];
  for (const found of await directory.readRecords(prefix)) {
    if (found.problem === undefined) records.push(found.value as PersistentTrackerRecord);
    else onProblem?.(found.name, found.problem);
  }
  return records;
}
