import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  backdate,
  type CopySeal,
  changeSince,
  type ReadAt,
  samplePlaces,
  samplesOf,
  sealName,
  sealOfOpen,
} from "../dist/seal.js";
import { MIB } from "./fake-machine.js";

const DISK_BYTES = 300 * MIB;

function readerOf(disk: Buffer): ReadAt {
  return async (offsetBytes, lengthBytes) => disk.subarray(offsetBytes, offsetBytes + lengthBytes);
}

/** With partitions that begin at these offsets. */
function gptDisk(blockBytes: number, starts: readonly number[]): Buffer {
  const disk = Buffer.alloc(DISK_BYTES);
  disk.write("EFI PART", blockBytes, "latin1");
  disk.writeBigUInt64LE(2n, blockBytes + 72);
  disk.writeUInt32LE(128, blockBytes + 80);
  disk.writeUInt32LE(128, blockBytes + 84);
  for (const [index, start] of starts.entries()) {
    disk.writeBigUInt64LE(BigInt(start / blockBytes), 2 * blockBytes + 128 * index + 32);
  }
  return disk;
}

function mbrDisk(starts: readonly number[]): Buffer {
  const disk = Buffer.alloc(DISK_BYTES);
  disk.writeUInt16LE(0xaa55, 510);
  for (const [index, start] of starts.entries()) {
    disk.writeUInt32LE(start / 512, 446 + 16 * index + 8);
  }
  return disk;
}

test("a write at the start of a partition, or to a sampled place, is detected", async () => {
  const starts = [MIB, 129 * MIB + 4096];
  for (const disk of [gptDisk(512, starts), gptDisk(4096, starts), mbrDisk(starts)]) {
    const before = await samplesOf(readerOf(disk), DISK_BYTES);
    // Superblocks of ext4 and btrfs; and an offset on a disk without partitions.
    for (const at of [MIB + 1024, 129 * MIB + 4096 + 65_600, 150 * MIB]) {
      disk[at]! ^= 1;
      assert.not.equal(await samplesOf(readerOf(disk), DISK_BYTES), before, `byte ${at}`);
      disk[at]! ^= 1;
    }
    assert.is(await samplesOf(readerOf(disk), DISK_BYTES), before);
  }
});

test("sampled offsets are within the device, unique and sorted, whatever its table says", () => {
  for (let round = 0; round < 50; round++) {
    const table = round === 0 ? Buffer.alloc(0) : randomBytes(MIB);
    if (round > 1) table.writeUInt16LE(0xaa55, 510);
    for (const at of [512, 4096]) if (round > 2) table.write("EFI PART", at, "latin1");
    if (round > 30) table.writeUInt32LE(round, 512 + 84);
    if (round > 40) table.writeBigUInt64LE(2n, 512 + 72);
    for (const sizeBytes of [512, MIB, DISK_BYTES, 16 * 2 ** 40]) {
      const places = samplePlaces(table, sizeBytes);
      assert.ok(places.every((place) => place > 0 && place < sizeBytes));
      assert.equal(
        places,
        [...new Set(places)].sort((one, other) => one - other),
      );
      assert.ok(places.length <= 64 + 4 + 2 * 128);
    }
  }
});

test("a file that is sealed at once, with its time set back, shows any write from then on", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-seal-"));
  const path = join(folder, "copy");
  // Its edges alone are summed.
  writeFileSync(path, Buffer.alloc(4 * MIB));
  const file = await open(path, "r+");
  for (let round = 0; round < 20; round++) {
    await file.write("own", 2 * MIB);
    const writtenMs = (await file.stat()).mtimeMs;
    await backdate(file);
    const backMs = writtenMs - (await file.stat()).mtimeMs;
    assert.ok(backMs > 20 && backMs < 30, `${backMs} ms back`);
    const seal = await sealOfOpen(file, 4 * MIB);
    assert.is(changeSince(seal, await sealOfOpen(file, 4 * MIB)), undefined);
    await file.write("foreign", 2 * MIB);
    assert.match(changeSince(seal, await sealOfOpen(file, 4 * MIB))!, "it was modified");
  }
  await file.close();
  rmSync(folder, { recursive: true });
});

test("a file whose time has whole seconds only keeps it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-seal-"));
  const file = await open(join(folder, "copy"), "w+");
  await file.utimes(1_000_000, 2_000_000);
  await backdate(file);
  assert.is((await file.stat()).mtimeMs, 2_000_000_000);
  await file.close();
  rmSync(folder, { recursive: true });
});

test("kernel counters reveal a write anywhere, within a boot and for the same disk", () => {
  const counters = { bootId: "a", diskseq: "7", writeSectors: 800, discardSectors: 0 };
  const seal: CopySeal = { sizeBytes: MIB, digest: "d", mtimeNs: null, counters, samples: "s" };
  const later = (more: object): CopySeal => ({ ...seal, counters: { ...counters, ...more } });
  assert.is(changeSince(seal, { ...seal }), undefined);
  assert.match(changeSince(seal, later({ writeSectors: 801 }))!, /written/);
  assert.match(changeSince(seal, later({ discardSectors: 8 }))!, /discard/);
  // Earlier counts are unknown.
  assert.is(changeSince(seal, later({ bootId: "b", writeSectors: 9 })), undefined);
  assert.is(changeSince(seal, later({ diskseq: "9", writeSectors: 9 })), undefined);
  assert.match(changeSince(seal, { ...seal, samples: "t" })!, "its content has changed");
  assert.is(sealName(JSON.parse(JSON.stringify(seal)) as CopySeal), sealName(seal));
  assert.not.equal(sealName(later({ writeSectors: 801 })), sealName(seal));
});

test.run();
