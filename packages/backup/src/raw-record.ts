/** What is remembered of a raw copy, in a file beside it: as of which snapshot it is. */
import { dirname } from "node:path";
import { type Files, realFiles, replaceFile } from "./files.js";
import type { AsOf } from "./plan.js";
import type { CopySeal } from "./seal.js";
import type { RecordedSums } from "./sums.js";
import { parseRecord, type RecordKind, recordText } from "./versioned-record.js";

const KIND: RecordKind = {
  format: "blksnap-raw-copy",
  version: 2,
  what: "record of a raw copy",
  // A copy without a record would be taken for a file of others.
  hint: "Remove it and the copy, and export in full",
};

export interface RawRecord extends AsOf {
  /** Absolute path of the copy when it was written; absent in records of earlier programs. */
  readonly target?: string | undefined;
  /** Being brought up to date from this snapshot on: some of it is newer. Nothing is missing in a later diff. */
  readonly is_updating: boolean;
  /** What it is brought up to date to; absent where it is not, and in records of earlier programs. */
  readonly updating_to?: Pick<AsOf, "changes_number" | "taken_at">;
  /** What a write of others would change. While it is updated: as it was before, which the target's mark has, too. */
  readonly seal: CopySeal;
  /** Of what was written. While it is updated: as it was before. Absent in records of earlier programs. */
  readonly sums?: RecordedSums | undefined;
}

export function recordPathOf(target: string): string {
  return `${target}.blksnap.json`;
}

/** Of an earlier version: it tells what the target is a copy of, and not whether others have written to it. */
export type EarlierRecord = Pick<AsOf, "host" | "machine_id" | "device"> & {
  readonly target?: undefined;
  readonly seal: undefined;
};

export function isOfThisVersion(record: RawRecord | EarlierRecord): record is RawRecord {
  return record.seal !== undefined;
}

/** Undefined where there is none. @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
export async function readRecord(
  path: string,
  files: Files = realFiles,
): Promise<RawRecord | EarlierRecord | undefined> {
  const text = (await files.read(path))?.toString();
  if (text === undefined) return undefined;
  const { version, fields } = parseRecord(KIND, text, path);
  if (version === KIND.version) return fields as unknown as RawRecord;
  const { host, machine_id, device } = fields as unknown as AsOf;
  return { host, machine_id, device, seal: undefined };
}

export async function writeRecord(
  path: string,
  record: RawRecord,
  files: Files = realFiles,
): Promise<void> {
  await replaceFile(files, path, recordText(KIND, record));
}

export async function removeRecord(path: string, files: Files = realFiles): Promise<void> {
  await files.remove(path);
  await files.syncFolder(dirname(path));
}
