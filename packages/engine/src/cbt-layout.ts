/**
 * Bytes of a CBT map file (little-endian, the machine's own order; read by this machine only).
 *
 *     0      magic  "CBTm"          u32      16   capacityBytes      f64
 *     4      version                u32      24   active number      u32
 *     8      blockShift             u32      28   sequence           u32   odd while the map is reset
 *     12     blockCount             u32      32   reason             u32
 *                                            36   corrupted          u32   1: marks were lost
 *                                            40   check              u32   ~active number
 *                                            48   generation id      16 bytes
 *     4096   write map: one byte per block, then zero up to a multiple of 4096
 *     ...    read map:  the same size
 *     ...    discards:  the same size; CbtDiscard bits
 *
 * The previous number is always active - 1, so one store switches both. The check is stored just before. A number
 * that does not match it is damaged; one that is too low would make changes count as old.
 */

export const CBT_MAGIC = 0x6d544243;
export const CBT_VERSION = 3;
export const CBT_HEADER_BYTES = 4096;
export const CBT_GENERATION_OFFSET = 48;
export const CBT_GENERATION_BYTES = 16;
export const CBT_CAPACITY_OFFSET = 16;

/** Index of each header field in 32-bit words. */
export const CbtWord = {
  MAGIC: 0,
  VERSION: 1,
  BLOCK_SHIFT: 2,
  BLOCK_COUNT: 3,
  ACTIVE: 6,
  SEQUENCE: 7,
  REASON: 8,
  CORRUPTED: 9,
  CHECK: 10,
} as const;

/** Bits of a block in the table of discards. */
export const CbtDiscard = {
  /** The last change of the block was a discard of the whole block. */
  LIVE: 1,
  /** The same for its frozen value; valid only where the read map is. */
  FROZEN: 2,
} as const;

/** Why the current generation began. */
export const CbtReason = {
  ATTACHED: 1,
  CAPACITY_CHANGED: 2,
  ROLLOVER: 3,
  UNCLEAN: 4,
  CORRUPTED: 5,
  FOREIGN_WRITE: 6,
  REQUESTED: 7,
} as const;

/** Bytes of one of the three tables. */
export function cbtTableBytes(blockCount: number): number {
  return Math.ceil(blockCount / 4096) * 4096;
}

/** Replaces a generation id by one derived from it, so that a rollover needs no random numbers. */
export function nextGeneration(id: Uint8Array): void {
  const words = new Uint32Array(4);
  new Uint8Array(words.buffer).set(id);
  for (let round = 0; round < 8; round++) {
    const at = round & 3;
    let mixed = words[at] ^ words[(at + 3) & 3];
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b) + 0x9e3779b9 + round;
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    words[at] = mixed ^ (mixed >>> 16);
  }
  id.set(new Uint8Array(words.buffer));
  id[6] = (id[6] & 0x0f) | 0x40;
  id[8] = (id[8] & 0x3f) | 0x80;
}
