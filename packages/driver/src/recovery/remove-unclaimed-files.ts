/**
 * What a daemon that was killed between two steps leaves behind without anybody to whom it belongs:
 * maps and stores that no record names, records that were not renamed yet, links that lead nowhere.
 *
 * A record that cannot be used keeps its files: what reads it again may find them of use.
 */
import type { StateDirectory } from "../records/state-directory.js";
import type { Snapshot } from "../snapshot/snapshot.js";
import { links, udevMarks } from "../system/device-names.js";

const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const CBT_MAP = /^cbt-([0-9]+)$/;
/** Of older daemons with the tracker's number. */
const AREA_MAP = new RegExp(`^area-(${UUID})-(?:${UUID}|[0-9]+)$`);
const MEMORY_STORE_FILE = new RegExp(`^blksnap-store-(${UUID})-[0-9]+$`);
const RECORD_COPY = /^(.*)\.record-copy$/;
const UNFINISHED_RECORD = /\.record(-copy)?\.new$/;

/** Removes it all; answers the names of the files, for the log. */
export function removeUnclaimedFiles(
  state: StateDirectory,
  snapshots: readonly Snapshot[],
): string[] {
  const records = new Set(state.recordNames());
  const maps = new Map(snapshots.map(({ id, members }) => [id, mapNames(members.values())]));
  const isLeft = (name: string): boolean => {
    const cbt = CBT_MAP.exec(name)?.[1];
    if (cbt !== undefined) return !records.has(`tracker-${cbt}`);
    const area = AREA_MAP.exec(name)?.[1];
    if (area !== undefined) {
      return maps.get(area)?.has(name) === false || !records.has(`snapshot-${area}`);
    }
    const store = MEMORY_STORE_FILE.exec(name)?.[1];
    if (store !== undefined) return !records.has(`snapshot-${store}`);
    const copied = RECORD_COPY.exec(name)?.[1];
    if (copied !== undefined) return !records.has(copied);
    return UNFINISHED_RECORD.test(name);
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
