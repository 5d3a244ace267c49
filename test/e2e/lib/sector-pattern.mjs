/**
 * Sectors that prove that they are whole, where they belong and when they were written:
 *
 *     0      magic "BSec"
 *     4      CRC-32 of all that follows
 *     8      sequence number: which round of writing
 *     12     device number: which disk of a test
 *     16     sector number, 64 bits
 *     24     random bytes up to the end
 *
 * A sector of another place, of a later time, torn, or foreign is recognised by itself: no test has to remember what
 * was written.
 */
import { crc32 } from "node:zlib";

export const SECTOR_BYTES = 512;
const MAGIC = 0x63655342;
const Field = { MAGIC: 0, CRC: 4, SEQUENCE: 8, DEVICE: 12, SECTOR_LOW: 16, SECTOR_HIGH: 20 };
const CHECKED_FROM = 8;

/** @typedef {"magic" | "crc" | "device" | "position" | "newer"} FaultKind */
/** @typedef {{kind: FaultKind, sector: number, found: number}} Fault */

export class SectorPattern {
  #random;
  #device;

  /** @param {object} random of random.mjs */
  constructor(random, device = 0) {
    this.#random = random;
    this.#device = device;
  }

  /** Fills the buffer with the content of sectors from `firstSector` on after the round `sequence`. */
  fill(buffer, firstSector, sequence) {
    this.#random.fill(buffer);
    for (let at = 0; at < buffer.length; at += SECTOR_BYTES) {
      const sector = firstSector + at / SECTOR_BYTES;
      buffer.writeUInt32LE(MAGIC, at + Field.MAGIC);
      buffer.writeUInt32LE(sequence, at + Field.SEQUENCE);
      buffer.writeUInt32LE(this.#device, at + Field.DEVICE);
      buffer.writeUInt32LE(sector >>> 0, at + Field.SECTOR_LOW);
      buffer.writeUInt32LE(Math.floor(sector / 2 ** 32), at + Field.SECTOR_HIGH);
      buffer.writeUInt32LE(checksum(buffer, at), at + Field.CRC);
    }
    return buffer;
  }

  /**
   * Faults of the sectors from `firstSector` on, of which none may be newer than the round.
   *
   * @returns {Fault[]} one per bad sector
   */
  faults(buffer, firstSector, newestSequence) {
    const faults = [];
    for (let at = 0; at < buffer.length; at += SECTOR_BYTES) {
      const sector = firstSector + at / SECTOR_BYTES;
      const fault = this.#faultAt(buffer, at, sector, newestSequence);
      if (fault !== undefined) faults.push({ ...fault, sector });
    }
    return faults;
  }

  #faultAt(buffer, at, sector, newestSequence) {
    const magic = buffer.readUInt32LE(at + Field.MAGIC);
    if (magic !== MAGIC) return { kind: "magic", found: magic };
    const crc = buffer.readUInt32LE(at + Field.CRC);
    if (crc !== checksum(buffer, at)) return { kind: "crc", found: crc };
    const device = buffer.readUInt32LE(at + Field.DEVICE);
    if (device !== this.#device) return { kind: "device", found: device };
    const place =
      buffer.readUInt32LE(at + Field.SECTOR_LOW) +
      buffer.readUInt32LE(at + Field.SECTOR_HIGH) * 2 ** 32;
    if (place !== sector) return { kind: "position", found: place };
    const sequence = buffer.readUInt32LE(at + Field.SEQUENCE);
    if (sequence > newestSequence) return { kind: "newer", found: sequence };
    return undefined;
  }
}

/** Sequence number of the sector at the byte offset of the buffer. */
export function sequenceAt(buffer, at) {
  return buffer.readUInt32LE(at + Field.SEQUENCE);
}

function checksum(buffer, at) {
  return crc32(buffer.subarray(at + CHECKED_FROM, at + SECTOR_BYTES));
}
