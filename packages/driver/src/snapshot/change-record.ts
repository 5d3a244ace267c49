/**
 * Changes only a part of a snapshot's record: while its members are added again, the record has more of them than the
 * snapshot. Without memory for it, the record stays unchanged.
 */
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import type { SnapshotRecord } from "../records/records.js";

export function changeRecord(
  { state, logger }: Pick<DriverContext, "state" | "logger">,
  id: string,
  change: Partial<SnapshotRecord>,
): void {
  const name = StateFile.snapshotRecord.name(id);
  try {
    for (const found of state.readRecords(name)) {
      if (found.problem !== undefined) continue;
      state.writeRecord(name, { ...(found.value as SnapshotRecord), ...change });
    }
  } catch (error) {
    logger.warn({ snapshot: id, err: error }, "record is not up to date");
  }
}
