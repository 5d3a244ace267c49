/** Journals on the medium that no record names: their daemon was killed between two steps. */
import { KeptFile } from "../records/file-names.js";
import type { FoundRecord } from "../records/state-directory.js";

export interface JournalClaims {
  readonly trackers: readonly FoundRecord[];
  readonly snapshots: readonly FoundRecord[];
  /** Names of the journals of areas that are known. */
  readonly areas: ReadonlySet<string>;
  /** Uuids of trackers that may not be on record yet. */
  readonly inUse: ReadonlySet<string>;
}

/** Whether a file is a journal of a take that was not completed, or of a tracker that was being attached or forgotten. */
export function unclaimedJournals(claims: JournalClaims): (name: string) => boolean {
  const { areas, inUse } = claims;
  const trackers = new Set(claims.trackers.map(({ name }) => name));
  // An unusable record of a snapshot may name any journal of an area.
  const areAreasKnown = claims.snapshots.every(({ problem }) => problem === undefined);
  return (name) => {
    const [uuid] = KeptFile.cbtJournal.idsIn(name) ?? [];
    if (uuid !== undefined) {
      return !trackers.has(KeptFile.trackerRecord.name(uuid)) && !inUse.has(uuid);
    }
    return areAreasKnown && KeptFile.areaJournal.idsIn(name) !== undefined && !areas.has(name);
  };
}
