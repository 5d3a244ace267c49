/** The checksum of a sector is zlib's. */
import { randomFillSync } from "node:crypto";
import { crc32 } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SECTOR_BYTES, SECTOR_CHECKED_BYTES, SECTOR_WORDS } from "../dist/layout.js";
import { sectorChecksum } from "../dist/sector-checksum.js";

const SECTORS = 64;

test("a sector's checksum is the CRC-32 of all its bytes before the checksum, and of no others", () => {
  const words = randomFillSync(new Int32Array(SECTORS * SECTOR_WORDS));
  words.fill(0, 0, SECTOR_WORDS);
  for (let sector = 0; sector < SECTORS; sector++) {
    const bytes = new Uint8Array(words.buffer, sector * SECTOR_BYTES, SECTOR_CHECKED_BYTES);
    assert.is(sectorChecksum(words, sector), crc32(bytes) | 0);
  }
});

test.run();
