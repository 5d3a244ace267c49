import { crc32 } from "node:zlib";
import { JournalError } from "./errors.js";
import {
  checkpointFileBytes,
  HEADER_BYTES,
  HEADER_MAGIC,
  HeaderOffset,
  ID_BYTES,
  JOURNAL_VERSION,
  PAGE_BYTES,
  SECTOR_BYTES,
  SECTOR_CHECKED_BYTES,
} from "./layout.js";

/** The header of a journal. */
export interface JournalHeader {
  /** The meaning of the entries, as a number of the user's choice. */
  readonly kind: number;
  /** 16 bytes that identify the journal's owner. */
  readonly id: Uint8Array;
  /** Payload of the checkpoint in bytes. */
  readonly checkpointBytes: number;
  /** Where the log begins, and how long it is, in bytes. */
  readonly logOffsetBytes: number;
  readonly logBytes: number;
  /** Sequence number of the log's first sector. */
  readonly firstSequence: number;
}

/** Where the log begins in a journal with a checkpoint of so many payload bytes. */
export function logOffsetOf(checkpointBytes: number): number {
  return HEADER_BYTES + checkpointFileBytes(checkpointBytes);
}

/** The header as one sector of 512 bytes. @throws JournalError ARGUMENT_INVALID */
export function encodeHeader(header: JournalHeader): Uint8Array {
  const { id, logBytes, checkpointBytes } = header;
  const valid =
    id.length === ID_BYTES &&
    Number.isSafeInteger(checkpointBytes) &&
    checkpointBytes >= 0 &&
    Number.isSafeInteger(logBytes) &&
    logBytes >= SECTOR_BYTES &&
    logBytes % SECTOR_BYTES === 0 &&
    header.logOffsetBytes === logOffsetOf(checkpointBytes);
  if (!valid) throw new JournalError("ARGUMENT_INVALID", "a journal header that fits no journal");
  const bytes = new Uint8Array(SECTOR_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from(HEADER_MAGIC, "latin1"), HeaderOffset.MAGIC);
  view.setUint32(HeaderOffset.VERSION, JOURNAL_VERSION, true);
  view.setUint32(HeaderOffset.KIND, header.kind, true);
  bytes.set(id, HeaderOffset.ID);
  view.setFloat64(HeaderOffset.CHECKPOINT_BYTES, checkpointBytes, true);
  view.setFloat64(HeaderOffset.LOG_OFFSET, header.logOffsetBytes, true);
  view.setFloat64(HeaderOffset.LOG_BYTES, logBytes, true);
  view.setUint32(HeaderOffset.FIRST_SEQUENCE, header.firstSequence, true);
  view.setUint32(HeaderOffset.CHECKSUM, crc32(bytes.subarray(0, SECTOR_CHECKED_BYTES)), true);
  return bytes;
}

/**
 * Reads a header.
 * @param bytes the first 512 bytes of the file
 * @param fileBytes size of the file
 * @throws JournalError JOURNAL_FORMAT, JOURNAL_VERSION, JOURNAL_TRUNCATED
 */
export function decodeHeader(bytes: Uint8Array, fileBytes: number): JournalHeader {
  if (bytes.length < SECTOR_BYTES) {
    throw new JournalError("JOURNAL_FORMAT", "the file is too short to be a journal");
  }
  const magic = Buffer.from(bytes.subarray(0, HEADER_MAGIC.length)).toString("latin1");
  if (magic !== HEADER_MAGIC) throw new JournalError("JOURNAL_FORMAT", "the file is not a journal");
  const view = new DataView(bytes.buffer, bytes.byteOffset, SECTOR_BYTES);
  const checksum = view.getUint32(HeaderOffset.CHECKSUM, true);
  if (checksum !== crc32(bytes.subarray(0, SECTOR_CHECKED_BYTES))) {
    throw new JournalError("JOURNAL_FORMAT", "the journal's header is damaged");
  }
  const version = view.getUint32(HeaderOffset.VERSION, true);
  if (version !== JOURNAL_VERSION) {
    const text = `the journal has version ${version}, this program reads ${JOURNAL_VERSION}`;
    throw new JournalError("JOURNAL_VERSION", text);
  }
  const header = {
    kind: view.getUint32(HeaderOffset.KIND, true),
    id: bytes.slice(HeaderOffset.ID, HeaderOffset.ID + ID_BYTES),
    checkpointBytes: view.getFloat64(HeaderOffset.CHECKPOINT_BYTES, true),
    logOffsetBytes: view.getFloat64(HeaderOffset.LOG_OFFSET, true),
    logBytes: view.getFloat64(HeaderOffset.LOG_BYTES, true),
    firstSequence: view.getUint32(HeaderOffset.FIRST_SEQUENCE, true),
  };
  const placed =
    header.logOffsetBytes === logOffsetOf(header.checkpointBytes) &&
    header.logOffsetBytes % PAGE_BYTES === 0 &&
    header.logBytes % SECTOR_BYTES === 0;
  if (!placed) throw new JournalError("JOURNAL_FORMAT", "the journal's header is inconsistent");
  if (header.logOffsetBytes + header.logBytes > fileBytes) {
    const need = header.logOffsetBytes + header.logBytes;
    throw new JournalError(
      "JOURNAL_TRUNCATED",
      `the journal has ${fileBytes} bytes, not ${need} as its header says`,
    );
  }
  return header;
}
