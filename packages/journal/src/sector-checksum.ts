/**
 * The CRC-32 of a log sector, by words. zlib's crc32() returns a number of 32 bits without a sign, which V8 has to make
 * an object: garbage with every commit.
 */
import { SECTOR_CHECKED_BYTES, SECTOR_WORDS } from "./layout.js";

const CHECKED_WORDS = SECTOR_CHECKED_BYTES / 4;
const POLYNOMIAL = 0xedb8_8320;

/** Of one byte, followed by 0 to 3 zero bytes. */
function tableOf(zeroBytes: number): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    let sum = byte;
    for (let bit = 0; bit < 8 * (1 + zeroBytes); bit++) {
      sum = (sum & 1) === 0 ? sum >>> 1 : (sum >>> 1) ^ POLYNOMIAL;
    }
    return sum;
  });
}

const LAST = tableOf(0);
const THIRD = tableOf(1);
const SECOND = tableOf(2);
const FIRST = tableOf(3);

/** As a signed word. */
export function sectorChecksum(words: Int32Array, sector: number): number {
  const end = sector * SECTOR_WORDS + CHECKED_WORDS;
  let sum = -1;
  for (let at = sector * SECTOR_WORDS; at < end; at++) {
    sum ^= words[at];
    sum =
      FIRST[sum & 0xff] ^
      SECOND[(sum >>> 8) & 0xff] ^
      THIRD[(sum >>> 16) & 0xff] ^
      LAST[sum >>> 24];
  }
  return ~sum;
}
