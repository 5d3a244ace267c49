/** What is kept of persistent snapshots on the medium. */

import type { AreaId } from "@blksnap/data-plane";
import { areaJournalName } from "./area-names.js";
import type { PersistentDirectory } from "./persistent-directory.js";
import type { SnapshotRecord } from "./records.js";

export interface PersistentMember {
  /** The tracker's record. */
  readonly tracker: string;
  /** Its diff area; null before take, absent in records of older daemons, where it is the journal's uuid. */
  readonly area?: AreaId | null;
  /** The area's journal; null before take. */
  readonly journal: string | null;
  /** Old data was lost: what exactly, only the map on tmpfs knew. */
  readonly lost: boolean;
}

/** The snapshot as the daemon keeps it on tmpfs, with names that outlive the daemon for its members. */
export interface PersistentSnapshotRecord {
  readonly snapshot: Omit<SnapshotRecord, "members">;
  readonly members: readonly PersistentMember[];
}

export function persistentSnapshotName(id: string): string {
  return `snapshot-${id}`;
}

/** Removes all that is kept of a snapshot. */
export async function forgetSnapshot(
  directory: PersistentDirectory,
  { snapshot, members }: PersistentSnapshotRecord,
): Promise<void> {
  await directory.removeRecord(persistentSnapshotName(snapshot.id));
  for (const { journal } of members) {
    if (journal !== null) await directory.removeFile(areaJournalName(journal));
  }
}
