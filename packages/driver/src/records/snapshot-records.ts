/** The records of persistent snapshots on the medium. */

import type { AreaId } from "@blksnap/data-plane";
import { KeptFile } from "./file-names.js";
import { LastingRemoval, type Removing } from "./lasting-removal.js";
import type { PersistentDirectory } from "./persistent-directory.js";
import type { SnapshotRecord } from "./records.js";

export interface PersistentMember {
  /** Uuid of the tracker's record. */
  readonly tracker: string;
  /** Its diff area; null before take; absent in records of older daemons, where the journal's uuid is the area's id. */
  readonly area?: AreaId | null;
  /** The area's journal; null before take. */
  readonly journal: string | null;
  /** Old data was lost; the map on tmpfs had the details. */
  readonly lost: boolean;
  /** Negative errno of its first lost block; absent without one, and in records of older daemons. */
  readonly errorCode?: number;
}

/** The snapshot's record on tmpfs, with names for its members that survive the daemon. */
export interface PersistentSnapshotRecord {
  readonly snapshot: Omit<SnapshotRecord, "members">;
  readonly members: readonly PersistentMember[];
}

/** Names of all that is kept of a snapshot: from its record, here or on the medium. */
export interface KeptNames {
  readonly snapshot: Pick<SnapshotRecord, "id">;
  readonly members: readonly { readonly journal?: string | null | undefined }[];
}

/** Removes everything that is kept of a snapshot. */
export async function forgetSnapshot(
  directory: PersistentDirectory,
  { snapshot, members }: KeptNames,
): Promise<void> {
  await directory.removeRecord(KeptFile.snapshotRecord.name(snapshot.id));
  for (const { journal = null } of members) {
    if (journal !== null) await directory.removeFile(KeptFile.areaJournal.name(journal));
  }
}

/**
 * As forgetSnapshot(), for a snapshot that must not return: retries until the medium has removed it. Leaves another
 * daemon's directory alone.
 */
export function forgetForGood(directory: PersistentDirectory, record: KeptNames): Removing {
  const { id } = record.snapshot;
  const before = directory.forgetting.get(id);
  if (before !== undefined) return before;
  const removing = removeForGood(directory, () => forgetSnapshot(directory, record));
  const done = removing.done.finally(() => directory.forgetting.delete(id));
  done.catch(() => undefined);
  const forgetting = { ...removing, done };
  directory.forgetting.set(id, forgetting);
  return forgetting;
}

/** As forgetForGood(), for the journal of one area: its image is lost, but others of the snapshot are not. */
export function forgetAreaForGood(directory: PersistentDirectory, journal: string): Removing {
  return removeForGood(directory, () => directory.removeFile(KeptFile.areaJournal.name(journal)));
}

function removeForGood(directory: PersistentDirectory, remove: () => Promise<void>): Removing {
  return new LastingRemoval(directory).begin(async () => {
    try {
      await directory.own();
      await remove();
    } catch (error) {
      if ((error as { code?: string }).code !== "ALREADY_RUNNING") throw error;
    }
  });
}

/**
 * Removes the seals of a snapshot's stores from its record.
 * @param isGivenUp true if the record must be removed from the medium
 */
export async function unsealSnapshot(
  directory: PersistentDirectory,
  id: string,
  isGivenUp: () => boolean,
): Promise<void> {
  const name = KeptFile.snapshotRecord.name(id);
  const [found] = await directory.readRecords(name);
  if (found === undefined || isGivenUp()) return;
  if (found.problem !== undefined) throw new Error(found.problem);
  const record = found.value as PersistentSnapshotRecord;
  const { storeSeals: _, ...snapshot } = record.snapshot;
  await directory.writeRecord(name, { ...record, snapshot });
  if (isGivenUp()) await forgetSnapshot(directory, record);
}
