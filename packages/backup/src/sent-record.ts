/** The record of streams, in a file: the snapshot of the last stream that was sent completely. */
import { realFiles, replaceFile } from "./files.js";
import type { AsOf } from "./plan.js";
import { parseRecord, type RecordKind, recordText } from "./versioned-record.js";

const KIND: RecordKind = {
  format: "blksnap-sent-stream",
  version: 1,
  what: "record of streams",
  hint: "Name another file, or remove this one: the next export is a full one",
};

/** Undefined if there is none. @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
export async function readSent(path: string): Promise<AsOf | undefined> {
  const text = (await realFiles.read(path))?.toString();
  if (text === undefined) return undefined;
  return parseRecord(KIND, text, path).fields as unknown as AsOf;
}

export async function writeSent(path: string, sent: AsOf): Promise<void> {
  await replaceFile(realFiles, path, recordText(KIND, sent));
}
