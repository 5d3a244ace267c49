/**
 * Stores that an orderly end has left: their old data is used only if nothing wrote to them since.
 *
 * ```
 *   stores open, claimed ─▶ unchanged? ─▶ seals removed from records ─▶ first growth, first copy
 *                               │ no
 *                               └▶ snapshot lost
 * ```
 *
 * The order matters: after the first change of our own, the seals would not match.
 */
import { ControlError } from "@blksnap/api";
import type { Store } from "@blksnap/diff-storage";
import { readSeal, writtenSince } from "@blksnap/linux-block";
import { bounded } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import { noAnswer } from "../records/persistent-directory.js";
import type { SnapshotRecord } from "../records/records.js";
import { unsealSnapshot } from "../records/snapshot-records.js";
import type { Snapshot } from "../snapshot/snapshot.js";
import { UNSEALING_PATIENCE_MS } from "../time-limits.js";
import { forgetPersistent } from "./discard.js";

const HINT = "Until a persistent snapshot is destroyed, only it may use its stores";

/** @throws ControlError STORE_FAILED: something wrote to a store; the error of open(2) or read(2) */
export async function beginWithSealed(
  context: DriverContext,
  snapshot: Pick<Snapshot, "persistence">,
  record: SnapshotRecord,
  stores: readonly Store[],
): Promise<void> {
  const { storeSeals } = record;
  if (storeSeals === undefined) return;
  for (const [index, store] of stores.entries()) {
    const seal = storeSeals[index] ?? null;
    if (seal === null) continue;
    // A volume that has grown still has everything that it had.
    const sizeBytes = Math.min(store.openedBytes, seal.sizeBytes);
    const change = writtenSince(seal, await readSeal(store.fd, sizeBytes));
    if (change === undefined) continue;
    const { path } = record.stores[index] ?? store;
    const text = `another program wrote to the store ${path} while no daemon used it: ${change}`;
    throw new ControlError("STORE_FAILED", text, { hint: HINT });
  }
  await unseal(context, snapshot, record);
}

/** On the medium first: a daemon that is killed in between finds the stores unchanged. */
async function unseal(
  context: DriverContext,
  { persistence }: Pick<Snapshot, "persistence">,
  record: SnapshotRecord,
): Promise<void> {
  const { logger, persistent, state } = context;
  let isGivenUp = false;
  try {
    await persistent.own();
    const unsealing = unsealSnapshot(persistent, record.id, () => isGivenUp);
    await bounded(unsealing, UNSEALING_PATIENCE_MS, noAnswer);
  } catch (error) {
    isGivenUp = true;
    await forgetPersistent(context, record);
    await persistence.giveUp([], `its record cannot be written: ${(error as Error).message}`);
  }
  const { storeSeals: _, ...unsealed } = record;
  try {
    state.writeRecord(StateFile.snapshotRecord.name(record.id), unsealed);
  } catch (error) {
    logger.warn({ snapshot: record.id, err: error }, "record is not up to date");
  }
}
