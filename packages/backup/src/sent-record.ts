/** What is remembered of streams, in a file: as of which snapshot the last one was that was sent to its end. */
import { BackupError } from "./errors.js";
import { realFiles, replaceFile } from "./files.js";
import type { AsOf } from "./plan.js";

const FORMAT = "blksnap-sent-stream";
const VERSION = 1;

function fieldsOf(text: string): { readonly format?: unknown; readonly version?: unknown } {
  try {
    return (JSON.parse(text) as object | null) ?? {};
  } catch {
    return {};
  }
}

/** Undefined where there is none. @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
export async function readSent(path: string): Promise<AsOf | undefined> {
  const text = (await realFiles.read(path))?.toString();
  if (text === undefined) return undefined;
  const hint = "Name another file, or remove this one: the next export is a full one";
  const { format, version, ...sent } = fieldsOf(text);
  if (format !== FORMAT) {
    throw new BackupError("BACKUP_DAMAGED", `${path} is no record of streams`, { hint });
  }
  if (version !== VERSION) {
    throw new BackupError("BACKUP_VERSION", `${path} is of version ${String(version)}`);
  }
  return sent as unknown as AsOf;
}

export async function writeSent(path: string, sent: AsOf): Promise<void> {
  const text = JSON.stringify({ format: FORMAT, version: VERSION, ...sent });
  await replaceFile(realFiles, path, Buffer.from(`${text}\n`));
}
