/**
 * Bytes of a journal file (little-endian).
 *
 * ```
 *   0                 header, one sector of 512 bytes, then zero to 4096
 *   4096              checkpoint: pages of 4096 bytes, 4080 of payload each
 *   log offset        log: sectors of 512 bytes; the file ends with it
 *
 *   header            magic "BLKJRNL1" | version u32 | kind u32 | id 16 bytes |
 *                     checkpoint bytes f64 | log offset f64 | log bytes f64 |
 *                     first sequence u32 | ... | crc32 of bytes 0 to 507 at 508
 *   checkpoint page   payload 4080 | page number u32 | tag u32 | 0 | crc32 of bytes 0 to 4091
 *   log sector        magic u32 | tag u32 | sequence u32 | commit u32 | entries u32 |
 *                     up to 30 entries of 16 bytes | 0 | crc32 of bytes 0 to 507 at 508
 * ```
 *
 * What a power cut can do. A sector of 512 bytes is written completely or not at all, because no block device has
 * smaller ones. The log starts as zeroes and is only appended to, one commit after another, each durable before the
 * next begins. So all commits but the last are complete, and any sector of the last may be missing. The last one was
 * not acknowledged, so it may be read up to its first missing sector. Everything else (a sector that is neither zero
 * nor valid, a missing one before a later commit) is damage, and the journal is refused: a reader that guessed would
 * lose something.
 *
 * Header and checkpoint are written before the file gets its name, and not changed later, except for the header's log
 * bytes when the log grows.
 */

export const SECTOR_BYTES = 512;
export const PAGE_BYTES = 4096;
export const PAGE_PAYLOAD_BYTES = 4080;
export const HEADER_BYTES = 4096;
export const ID_BYTES = 16;
export const ENTRY_WORDS = 4;
export const ENTRIES_PER_SECTOR = 30;
export const JOURNAL_VERSION = 1;

export const SECTOR_WORDS = 128;
/** Bytes of a sector that its checksum covers; the checksum follows. */
export const SECTOR_CHECKED_BYTES = 508;
export const SECTOR_MAGIC = 0x5253_4a42;

/** Index of a log sector's fields in 32-bit words. */
export const SectorWord = {
  MAGIC: 0,
  TAG: 1,
  SEQUENCE: 2,
  COMMIT: 3,
  ENTRIES: 4,
  FIRST_ENTRY: 5,
  CHECKSUM: 127,
} as const;

export const HEADER_MAGIC = "BLKJRNL1";

/** Byte offsets of the header's fields. */
export const HeaderOffset = {
  MAGIC: 0,
  VERSION: 8,
  KIND: 12,
  ID: 16,
  CHECKPOINT_BYTES: 32,
  LOG_OFFSET: 40,
  LOG_BYTES: 48,
  FIRST_SEQUENCE: 56,
  CHECKSUM: 508,
} as const;

/** Byte offsets of a checkpoint page's fields after its payload. */
export const PageOffset = {
  NUMBER: 4080,
  TAG: 4084,
  CHECKSUM: 4092,
} as const;

/** Bytes that a checkpoint of so many payload bytes takes in the file. */
export function checkpointFileBytes(payloadBytes: number): number {
  return Math.ceil(payloadBytes / PAGE_PAYLOAD_BYTES) * PAGE_BYTES;
}

/** Ties sectors and pages to their file: the first word of the journal's id. */
export function tagOf(id: Uint8Array): number {
  return new DataView(id.buffer, id.byteOffset, ID_BYTES).getInt32(0, true);
}
