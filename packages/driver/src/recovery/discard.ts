/** After a crash: removes the leftovers of a snapshot that was interrupted, or is lost. */

import { join } from "node:path";
import { faultPoint } from "@blksnap/data-plane";
import { ETIMEDOUT } from "@blksnap/errors";
import { bounded, unlinkInHelper } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import type { Removing } from "../records/lasting-removal.js";
import { noAnswer } from "../records/persistent-directory.js";
import type { SnapshotRecord } from "../records/records.js";
import { forgetForGood } from "../records/snapshot-records.js";
import { storeFiles } from "../snapshot/hidden-store.js";
import { isWithoutPath } from "../snapshot/store-record.js";
import { FORGETTING_PATIENCE_MS } from "../time-limits.js";

/**
 * Undoes what a take has made, and forgets it: another image may soon have its number.
 * Returns the record from here on.
 */
export async function rollBack(
  context: DriverContext,
  record: SnapshotRecord,
  all: readonly SnapshotRecord[],
): Promise<SnapshotRecord> {
  await removeTraces(context, record, all);
  const members = record.members.map((member) => ({
    ...member,
    area: null,
    map: null,
    image: null,
  }));
  const rolledBack = { ...record, state: "created", members } as const;
  try {
    context.state.writeRecord(StateFile.snapshotRecord.name(record.id), rolledBack);
  } catch (error) {
    context.logger.warn({ snapshot: record.id, err: error }, "record is not up to date");
  }
  return rolledBack;
}

/** Removes everything that a snapshot has left, and its record. What cannot be removed stays, and is logged. */
export async function discard(
  context: DriverContext,
  record: SnapshotRecord,
  all: readonly SnapshotRecord[],
): Promise<void> {
  try {
    await removeAll(context, record, all);
  } catch (error) {
    context.logger.error({ snapshot: record.id, err: error }, "not all of a snapshot is removed");
  }
}

async function removeAll(
  context: DriverContext,
  record: SnapshotRecord,
  all: readonly SnapshotRecord[],
): Promise<void> {
  await removeTraces(context, record, all);
  for (const [index, { path }] of record.stores.entries()) {
    const directory = isWithoutPath(path) ? context.state.path : path;
    for (const fileName of storeFiles(record.id, record.stores, index)) {
      const status = await unlinkInHelper(join(directory, fileName), FORGETTING_PATIENCE_MS);
      // Any other failure means that it was never made, or is gone with its file system.
      if (status !== -ETIMEDOUT) continue;
      const text = `${directory} does not answer: ${fileName} stays there`;
      context.logger.warn({ snapshot: record.id }, text);
      break;
    }
  }
  faultPoint("recover.discarded");
  const forgetting = await forgetPersistent(context, record);
  const name = StateFile.snapshotRecord.name(record.id);
  if (forgetting === undefined) {
    context.state.removeRecord(name);
    return;
  }
  // Otherwise the next daemon would find it only on the medium, and take it up again.
  context.state.writeRecord(name, { ...record, state: "destroying" });
  forgetting.done.then(() => context.state.removeRecord(name)).catch(() => undefined);
}

/**
 * Forgets a persistent snapshot that is lost, or not kept any more, on the medium, too. Retries if that fails; the
 * result says so.
 */
export async function forgetPersistent(
  context: DriverContext,
  record: SnapshotRecord,
): Promise<Removing | undefined> {
  if (record.persistent !== true) return undefined;
  const { members } = record;
  const forgetting = forgetForGood(context.persistent, { snapshot: record, members });
  const { tried, done } = forgetting;
  try {
    await bounded(
      tried.then(() => done),
      FORGETTING_PATIENCE_MS,
      noAnswer,
    );
    return undefined;
  } catch (error) {
    const text = "its record is not removed yet: after a power cut it would come back";
    context.logger.error({ snapshot: record.id, err: error }, text);
    return forgetting;
  }
}

/** Removes the images and maps of a snapshot. */
async function removeTraces(
  context: DriverContext,
  { id, members }: SnapshotRecord,
  all: readonly SnapshotRecord[],
): Promise<void> {
  // The number may have been taken again if it stayed on record for lack of room.
  const taken = all.filter((other) => other.id !== id && other.state === "taken");
  const ofOthers = new Set(taken.flatMap((other) => other.members.map(({ image }) => image)));
  for (const { image, map } of members) {
    if (image !== null && !ofOthers.has(image)) await context.frontend.removeImage(image);
    if (map !== null) context.state.removeFile(map);
  }
}
