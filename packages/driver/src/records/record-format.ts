/**
 * The format of records: one line with format, version and the SHA-256 of the rest, then JSON.
 */
import { createHash } from "node:crypto";

const HEADER = /^blksnap-record ([0-9]+) ([0-9a-f]{64})\n/;
/** The version that programs before zero copy can use. */
const VERSION = 1;
/** For the tracker of a front with zero copy: older programs refuse it by name, and leave the front alone. */
export const ZERO_COPY_VERSION = 2;

/** The content of a record, or why it cannot be used. */
export type DecodedRecord =
  | { readonly value: unknown; readonly problem?: undefined }
  | { readonly problem: string };

/** @param version determines which programs can use it: VERSION or ZERO_COPY_VERSION */
export function encodeRecord(value: unknown, version: number = VERSION): string {
  const text = JSON.stringify(value);
  return `blksnap-record ${version} ${digest(text)}\n${text}`;
}

export function decodeRecord(text: string): DecodedRecord {
  const header = HEADER.exec(text);
  if (header === null) return { problem: "it is not a record" };
  const version = Number(header[1]);
  if (version < VERSION || version > ZERO_COPY_VERSION) {
    const known = `${VERSION} to ${ZERO_COPY_VERSION}`;
    return { problem: `it has version ${header[1]}, this daemon reads ${known}` };
  }
  const body = text.slice(header[0].length);
  if (digest(body) !== header[2]) return { problem: "its checksum is wrong" };
  return { value: JSON.parse(body) };
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
