/** The record of a raw copy, in a file beside it: the snapshot that the copy is of. */
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
  // Without a record the copy would count as a foreign file.
  hint: "Remove it and the copy, and export in full",
};

export interface RawRecord extends AsOf {
  /** Absolute path of the copy when it was written; absent in records of earlier programs. */
  readonly target?: string | undefined;
  /** An update from this snapshot is in progress: parts are newer. A later diff lists all of them. */
  readonly is_updating: boolean;
  /** The goal of the update; absent without one, and in records of earlier programs. */
  readonly updating_to?: Pick<AsOf, "changes_number" | "taken_at">;
  /** State that a foreign write would change. During an update: the former state, which the target's mark has, too. */
  readonly seal: CopySeal;
  /** Sums of the written data. During an update: the former ones. Absent in records of earlier programs. */
  readonly sums?: RecordedSums | undefined;
}

export function recordPathOf(target: string): string {
  return `${target}.blksnap.json`;
}

/** A record of an earlier version: it names the copy's device, but does not reveal foreign writes. */
export type EarlierRecord = Pick<AsOf, "host" | "machine_id" | "device"> & {
  readonly target?: undefined;
  readonly seal: undefined;
};

export function isOfThisVersion(record: RawRecord | EarlierRecord): record is RawRecord {
  return record.seal !== undefined;
}

/** Undefined if there is none. @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
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
