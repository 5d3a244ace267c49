/** The manifest of a point in time: the content of a device, chunk by chunk. */
import { createHash } from "node:crypto";
import type { DiffRange } from "@blksnap/api";
import { CAPACITY_MAX_BYTES, CHUNK_BYTES, chunkCount } from "./chunks.js";
import { BackupError } from "./errors.js";
import type { HostIdentity } from "./host.js";

const FORMAT = "blksnap-backup";
const VERSION = 1;
const HASH = /^[0-9a-f]{64}$/;
/** Longer lists of changed ranges are omitted. */
export const RANGES_MAX = 65_536;

/** As in the file, without format, version and checksum. */
export interface Manifest extends HostIdentity {
  readonly id: string;
  /** Time of the take. */
  readonly taken_at: string;
  /** Path of the original. */
  readonly device: string;
  readonly capacity_bytes: number;
  readonly chunk_bytes: number;
  readonly generation_id: string;
  readonly changes_number: number;
  readonly kind: "full" | "incremental";
  /** The point that an incremental one continues. All chunks are listed here all the same. */
  readonly parent: string | null;
  /** Bytes read from the image for this point. */
  readonly read_bytes: number;
  /** Bytes of compressed chunks that were new in the store. */
  readonly stored_bytes: number;
  /** Changes since the parent; null for a full one, and if there are too many. */
  readonly ranges: readonly DiffRange[] | null;
  /** SHA-256 of the content of each chunk; null for zeros. */
  readonly chunks: readonly (string | null)[];
}

type Fields = Record<string, unknown>;

function checksumOf(fields: Fields): string {
  return createHash("sha256").update(JSON.stringify(fields)).digest("hex");
}

export function manifestText(manifest: Manifest): string {
  const fields = { format: FORMAT, version: VERSION, ...manifest };
  return `${JSON.stringify({ ...fields, sha256: checksumOf(fields) })}\n`;
}

/** Whether it begins like the output of manifestText(), unlike foreign files. */
export function looksLikeManifest(text: string): boolean {
  return text.startsWith(`{"format":"${FORMAT}",`);
}

function damaged(path: string, why: string): BackupError {
  return new BackupError("BACKUP_DAMAGED", `the manifest ${path} is damaged: ${why}`);
}

function hasFields(fields: Fields): boolean {
  const { id, taken_at, host, device, generation_id, kind, chunks, ranges } = fields;
  const texts = [id, taken_at, host, device, generation_id];
  const numbers = [fields["changes_number"], fields["read_bytes"], fields["stored_bytes"]];
  const { capacity_bytes: capacity } = fields as { capacity_bytes: number };
  return (
    texts.every((text) => typeof text === "string") &&
    ["string", "undefined"].includes(typeof fields["machine_id"]) &&
    numbers.every((number) => Number.isSafeInteger(number)) &&
    (kind === "full" || kind === "incremental") &&
    (ranges === null || Array.isArray(ranges)) &&
    Number.isSafeInteger(capacity) &&
    capacity > 0 &&
    capacity <= CAPACITY_MAX_BYTES &&
    fields["chunk_bytes"] === CHUNK_BYTES &&
    Array.isArray(chunks) &&
    chunks.length === chunkCount(capacity) &&
    chunks.every((hash) => hash === null || (typeof hash === "string" && HASH.test(hash)))
  );
}

/** @throws BackupError BACKUP_DAMAGED, BACKUP_VERSION */
export function parseManifest(text: string, path: string): Manifest {
  let fields: Fields;
  try {
    fields = JSON.parse(text) as Fields;
  } catch (error) {
    throw damaged(path, (error as Error).message);
  }
  if (fields === null || typeof fields !== "object" || fields["format"] !== FORMAT) {
    throw damaged(path, "it is not a manifest");
  }
  if (fields["version"] !== VERSION) {
    const why = `${path} is of version ${String(fields["version"])}, known is ${VERSION}`;
    throw new BackupError("BACKUP_VERSION", why);
  }
  const { sha256, ...rest } = fields;
  if (sha256 !== checksumOf(rest)) throw damaged(path, "its checksum differs");
  if (!hasFields(rest)) throw damaged(path, "fields are missing");
  const { format: _, version: __, ...manifest } = rest;
  return manifest as unknown as Manifest;
}
