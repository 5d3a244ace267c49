/** What is kept of persistent snapshots on the medium. */

import type { AreaId } from "@blksnap/data-plane";
import { KeptFile } from "./file-names.js";
import { LastingRemoval, type Removing } from "./lasting-removal.js";
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
  /** Negative errno of its first lost block; absent without one, and in records of older daemons. */
  readonly errorCode?: number;
}

/** The snapshot as the daemon keeps it on tmpfs, with names that outlive the daemon for its members. */
export interface PersistentSnapshotRecord {
  readonly snapshot: Omit<SnapshotRecord, "members">;
  readonly members: readonly PersistentMember[];
}

/** What names all that is kept of a snapshot: its record, here or on the medium. */
export interface KeptNames {
  readonly snapshot: Pick<SnapshotRecord, "id">;
  readonly members: readonly { readonly journal?: string | null | undefined }[];
}

/** Removes all that is kept of a snapshot. */
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
 * As forgetSnapshot(), of one that must not come back: a medium that fails is tried again until it is done. Another
 * daemon's directory is left alone.
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

/** As forgetForGood(), of the journal of an area alone: its image is lost, and others of the snapshot are not. */
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
 * Takes the seals of its stores off a snapshot's record.
 * @param isGivenUp whether it must not be on the medium any more
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
