/** Results of freezing file systems, in words. */
import type { FileSystemFreeze } from "@blksnap/api";
import { counted } from "./units.js";

const MEANING = {
  frozen: "frozen",
  synced: "synced, not frozen",
  not: "not frozen: the last writes may be missing",
} as const;

/** One file system, e.g. "/mnt/stick (vfat): synced, not frozen (EOPNOTSUPP)". */
export function freezeText({
  mount_point,
  source,
  type,
  pid,
  state,
  why,
}: FileSystemFreeze): string {
  const where = pid === null || pid === 1 ? "" : ` of process ${pid}`;
  const what = `${mount_point ?? source}${where} (${type ?? "mounted nowhere"})`;
  return `${what}: ${MEANING[state]}${why === null ? "" : ` (${why})`}`;
}

/** The results of a snapshot, e.g. "2 file systems frozen"; failures one by one. */
export function freezeLines(all: readonly FileSystemFreeze[]): string[] {
  const frozen = all.filter(({ state }) => state === "frozen").length;
  const others = all.filter(({ state }) => state !== "frozen").map(freezeText);
  if (frozen === 0) return others;
  return [`${counted(frozen, "file system")} frozen`, ...others];
}
