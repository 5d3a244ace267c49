/** Makes a file or block device identical to a device. */

import type { ByteRange } from "@blksnap/api";
import { allOf } from "@blksnap/errors";
import { copyState, rememberBegun, rememberDone } from "./copy-state.js";
import { doneChunks, keptReason } from "./done-chunks.js";
import { BackupError } from "./errors.js";
import type { ExportOptions } from "./export-store.js";
import { hostOf } from "./host.js";
import { withTargetLock } from "./lock.js";
import { copyParts } from "./part-copy.js";
import { bytesOf, partsOf, readPlaces } from "./parts.js";
import { asOf, planExport, withoutHost } from "./plan.js";
import { recordPathOf } from "./raw-record.js";
import { RawTarget, targetAt, targetKind } from "./raw-target.js";
import { rememberedInFile } from "./remembered.js";
import { type TakenSnapshot, withSnapshot } from "./snapshot.js";
import { type ImageReader, openImage } from "./source.js";
import { sumsOnto, wholeBlocks } from "./sums.js";

export interface RawExportOptions extends ExportOptions {
  readonly target: string;
  /** Records the snapshot that the target is of. Default: beside a file; of a block device: none. */
  readonly record?: string | undefined;
}

export interface RawExport {
  readonly kind: "full" | "incremental";
  readonly device: string;
  readonly generation_id: string;
  readonly changes_number: number;
  readonly taken_at: string;
  readonly capacity_bytes: number;
  readonly read_bytes: number;
}

/**
 * Ranges that need not be read. A block with a sum is in one of them completely or not at all, because parts have no
 * sums.
 * @param capacityBytes of the device
 */
export async function emptyOf(
  image: ImageReader,
  capacityBytes: number,
): Promise<readonly ByteRange[]> {
  return wholeBlocks(await image.emptyRanges(), capacityBytes);
}

async function copy(
  snapshot: TakenSnapshot,
  options: RawExportOptions,
  record: string | undefined,
): Promise<RawExport> {
  const { client, wanted, target, open = openImage } = options;
  const host = hostOf(options);
  const { capacityBytes } = snapshot;
  const now = asOf(snapshot, host);
  const opening = open(snapshot.image, snapshot.exported);
  // Its failure is reported after those of the target.
  opening.catch(() => undefined);
  try {
    const { base: known, why } = await copyState(target, record, now);
    if (why !== undefined && wanted.kind === "since") {
      throw new BackupError("BACKUP_CHAIN_BROKEN", why);
    }
    const states = known === undefined ? [] : [known];
    let plan = await planExport(client, wanted, states, host, snapshot);
    if (plan.kind === "full" && why !== undefined) plan = { kind: "full", reason: why };
    const image = await opening;
    const base = plan.kind === "incremental" ? plan.base : undefined;
    const prepare = (): Promise<void> => rememberBegun(record, base, now);
    const isUpdate = base !== undefined;
    const seal = base?.seal;
    const sums = record === undefined ? undefined : sumsOnto(base, capacityBytes);
    // Before the target is touched, because the generation may be unknown.
    const emptyRanges = () =>
      sums === undefined ? image.emptyRanges() : emptyOf(image, capacityBytes);
    const empty = plan.kind === "full" ? await emptyRanges() : [];
    const to = await RawTarget.begin({ path: target, capacityBytes, isUpdate, seal, prepare });
    try {
      const parts = partsOf(plan, capacityBytes, to.headBytes, empty);
      const reason = plan.kind === "full" ? plan.reason : null;
      const total_bytes = bytesOf(parts);
      const kept = keptReason(snapshot, total_bytes, options);
      options.onPlan?.({ kind: plan.kind, reason, total_bytes, kept });
      const freed = doneChunks(snapshot, readPlaces(parts), kept, options);
      const done = (offsetBytes: number): void => freed.done(offsetBytes);
      const read_bytes = await copyParts(parts, image, to, sums, options, done).finally(freed.end);
      await image.sync();
      // The target is not complete before the check has passed, but its data can be durable.
      await allOf([snapshot.check(freed.end()), image.close(), to.sync()]);
      snapshot.release();
      await to.finish((seal) => rememberDone(record, { ...now, target, seal }, sums));
      return { kind: plan.kind, ...withoutHost(now), read_bytes };
    } finally {
      await to.close();
    }
  } finally {
    await opening.then(
      (image) => image.close(),
      () => undefined,
    );
  }
}

/**
 * Makes the target identical to the device in its snapshot. If interrupted, it does not look complete, and the next
 * export continues from its former snapshot.
 * @throws BackupError TARGET_EXISTS, TARGET_TOO_SMALL, TARGET_IN_USE, BACKUP_BUSY, BACKUP_CHAIN_BROKEN, ...
 */
export async function exportRaw(given: RawExportOptions): Promise<RawExport> {
  const options = { ...given, target: await targetAt(given.target) };
  const { target, wanted } = options;
  const kind = await targetKind(target);
  if (kind === "folder") {
    const hint = "Name a file or block device, or omit --raw";
    throw new BackupError("TARGET_EXISTS", `${target} is a folder`, { hint });
  }
  const recordBeside = kind === "block" ? undefined : recordPathOf(target);
  const record = given.record === undefined ? recordBeside : await targetAt(given.record);
  if (record === undefined) {
    if (wanted.kind !== "full") {
      const hint = "Name a file for the record: --record FILE";
      const why = `no record says which snapshot ${target} is of`;
      throw new BackupError("BACKUP_CHAIN_BROKEN", why, { hint });
    }
    return await withSnapshot(options, (snapshot) => copy(snapshot, options, record));
  }
  const run = async (): Promise<RawExport> => {
    const own = { ...options, ownSnapshot: rememberedInFile(`${record}.snapshot`) };
    return await withSnapshot(own, (snapshot) => copy(snapshot, options, record));
  };
  const what = `an export to ${target}`;
  const ofTarget = kind === "block" ? record : recordPathOf(target);
  // A record with another name may belong to other copies, too.
  const locked = record === ofTarget ? run : () => withTargetLock(record, what, run);
  return await withTargetLock(ofTarget, what, locked);
}
