/**
 * Records the end of trackers that were served in this boot and are not any more: a daemon was killed while it attached
 * or detached them and the medium did not answer, or another program has deleted their fronts. Any program may write to
 * their originals, so a later boot must not take them for tracked to the end of this one.
 */
import { readBootId } from "@blksnap/linux-block";
import { bounded } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { KeptFile } from "../records/file-names.js";
import { noAnswer } from "../records/persistent-directory.js";
import { type PersistentTrackerRecord, trackerRecords } from "../records/tracker-records.js";

type EndsContext = Pick<DriverContext, "persistent" | "logger">;

/**
 * Records that they ended. Trackers that are served, or wait for it, are in use.
 * @param isAgain failures were logged before
 * @returns whether everything is recorded; otherwise try again
 */
export async function recordEnds(
  { persistent, logger }: EndsContext,
  isAgain = false,
): Promise<boolean> {
  let device: string | undefined;
  try {
    if (!(await persistent.exists())) return true;
    await persistent.own();
    const bootId = await readBootId();
    for (const record of await trackerRecords(persistent)) {
      if (!isUnserved(record, bootId) || persistent.inUse.has(record.uuid)) continue;
      ({ device } = record);
      if (!(await recordEnd(persistent, record.uuid, bootId))) continue;
      logger.warn({ device }, "its front is gone: the end of tracking is recorded");
    }
    return true;
  } catch (error) {
    // Another daemon has the directory: its content is not this one's, now or later.
    if ((error as { code?: string }).code === "ALREADY_RUNNING") return true;
    const text = "the end of tracking could not be recorded; retrying";
    if (!isAgain) logger.error({ device, err: error }, text);
    return false;
  }
}

function isUnserved({ tracking }: PersistentTrackerRecord, bootId: string): boolean {
  return !tracking.clean && tracking.serving === true && tracking.witness.bootId === bootId;
}

/**
 * Until the medium answers, nothing else begins with the record. Then the record is read again: since it was found, an
 * attach and a detach may have removed or replaced it.
 * @returns false if the record, read again, needs no change
 * @throws Error
 */
async function recordEnd(
  persistent: DriverContext["persistent"],
  uuid: string,
  bootId: string,
): Promise<boolean> {
  if (persistent.unanswered.has(uuid)) throw noAnswer();
  persistent.unanswered.add(uuid);
  const name = KeptFile.trackerRecord.name(uuid);
  const writing = async (): Promise<boolean> => {
    const found = (await trackerRecords(persistent, undefined, name)).find(
      (record) => record.uuid === uuid,
    );
    if (found === undefined || persistent.inUse.has(uuid) || !isUnserved(found, bootId)) {
      return false;
    }
    const { tracking } = found;
    // If it was mounted to the end, such as below a tracker whose map could not be kept, its writes are in no
    // journal.
    const content = { ...tracking.content, proof: undefined };
    await persistent.writeRecord(name, {
      ...found,
      tracking: { ...tracking, content, serving: false },
    });
    return true;
  };
  const written = writing().finally(() => persistent.unanswered.delete(uuid));
  written.catch(() => undefined);
  return bounded(written, persistent.answerTimeoutMs, noAnswer);
}
