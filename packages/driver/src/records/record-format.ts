/**
 * How records are written: one line that names format, version and the SHA-256 of the rest, then JSON.
 */
import { createHash } from "node:crypto";

const HEADER = /^blksnap-record ([0-9]+) ([0-9a-f]{64})\n/;
const VERSION = 1;

/** What a record's text holds, or why it cannot be used. */
export type DecodedRecord =
  | { readonly value: unknown; readonly problem?: undefined }
  | { readonly problem: string };

export function encodeRecord(value: unknown): string {
  const text = JSON.stringify(value);
  return `blksnap-record ${VERSION} ${digest(text)}\n${text}`;
}

export function decodeRecord(text: string): DecodedRecord {
  const header = HEADER.exec(text);
  if (header === null) return { problem: "it is no record" };
  if (Number(header[1]) !== VERSION) {
    return { problem: `it has version ${header[1]}, this daemon reads ${VERSION}` };
  }
  const body = text.slice(header[0].length);
  if (digest(body) !== header[2]) return { problem: "its checksum is wrong" };
  return { value: JSON.parse(body) };
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
