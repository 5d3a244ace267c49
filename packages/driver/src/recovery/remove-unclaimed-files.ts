/**
 * Files that a daemon left unclaimed when it was killed between two steps: maps and stores that no record names,
 * records that were not renamed yet, dangling links.
 *
 * An unusable record keeps its files: a later version may be able to use them.
 */

import { isUnfinishedRecord, recordOf, StateFile } from "../records/file-names.js";
import type { StateDirectory } from "../records/state-directory.js";
import type { Snapshot } from "../snapshot/snapshot.js";
import { links, udevMarks } from "../system/device-names.js";

/** Removes all of them; returns their names, for the log. */
export function removeUnclaimedFiles(
  state: StateDirectory,
  snapshots: readonly Snapshot[],
): string[] {
  const records = new Set(state.recordNames());
  const maps = new Map(snapshots.map(({ id, members }) => [id, mapNames(members.values())]));
  const isLeft = (name: string): boolean => {
    const [snapshot] = StateFile.areaMap.idsIn(name) ?? [];
    if (snapshot !== undefined && maps.get(snapshot)?.has(name) === false) return true;
    if (StateFile.grownMap.idsIn(name) !== undefined) return true;
    const record = recordOf(name);
    return record === undefined ? isUnfinishedRecord(name) : !records.has(record);
  };
  const left = state.fileNames().filter(isLeft);
  for (const name of left) state.removeFile(name);
  links.removeStale();
  udevMarks.removeStale();
  return left;
}

function mapNames(
  members: Iterable<{ readonly area: { readonly map: { readonly name: string } } | undefined }>,
): Set<string> {
  return new Set([...members].flatMap(({ area }) => (area === undefined ? [] : [area.map.name])));
}
