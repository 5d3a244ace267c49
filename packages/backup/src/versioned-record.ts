/** Small JSON records, which begin with their format and version and are checked in the same way. */
import { BackupError } from "./errors.js";

export interface RecordKind {
  readonly format: string;
  /** The version to write. Earlier ones are known, too; 1 is the first. */
  readonly version: number;
  /** For messages: "record of a raw copy". */
  readonly what: string;
  /** What to do if it cannot be read. */
  readonly hint: string;
}

export interface VersionedFields {
  readonly version: number;
  /** All other fields. */
  readonly fields: Readonly<Record<string, unknown>>;
}

function objectIn(text: string): Record<string, unknown> {
  try {
    return (JSON.parse(text) as Record<string, unknown> | null) ?? {};
  } catch {
    return {};
  }
}

/** @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
export function parseRecord(kind: RecordKind, text: string, path: string): VersionedFields {
  const { format, version, ...fields } = objectIn(text);
  const isVersion = typeof version === "number" && Number.isSafeInteger(version) && version >= 1;
  if (format !== kind.format || !isVersion) {
    throw new BackupError("BACKUP_DAMAGED", `${path} is no ${kind.what}`, { hint: kind.hint });
  }
  if (version > kind.version) {
    const hint = `Use the version of blksnapctl that wrote it, or newer. Or: ${kind.hint}`;
    throw new BackupError("BACKUP_VERSION", `${path} is of version ${version}`, { hint });
  }
  return { version, fields };
}

export function recordText({ format, version }: RecordKind, fields: object): Buffer {
  return Buffer.from(`${JSON.stringify({ format, version, ...fields })}\n`);
}
