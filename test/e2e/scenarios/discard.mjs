/**
 * Discards, write-zeroes and forced writes on the front: the image keeps the old data. A discard is a hint: under a
 * snapshot it is held back, costs no copy, and is sent when the snapshot is destroyed.
 */
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import {
  alignedBuffer,
  assertContent,
  DeviceFile,
  readDevice,
  writeDevice,
} from "../lib/device-file.mjs";
import { imageFile, loopDisk, nullDisk } from "../lib/disks.mjs";
import {
  assertChecksums,
  checksums,
  makeFileSystem,
  mount,
  mountImage,
} from "../lib/file-systems.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const SIZE_BYTES = 12 * MIB;
const random = seededRandom("discard");

const DISKS = {
  loop: (t) => loopDisk(t, SIZE_BYTES),
  "null_blk with a cache": (t) =>
    nullDisk(t, { sizeMib: SIZE_BYTES / MIB, discard: true, cacheMib: 4 }),
};

/** What is done to the front, and which bytes read as zero afterwards. */
const ACTIONS = {
  "discard of everything": {
    words: (front) => ["blkdiscard", front],
    zeroes: [0, SIZE_BYTES],
    isHint: true,
    disks: ["loop", "null_blk with a cache"],
  },
  "discard of an odd part": {
    words: (front) => ["blkdiscard", "-o", "69632", "-l", "5255168", front],
    zeroes: [69632, 69632 + 5255168],
    isHint: true,
    disks: ["loop"],
  },
  "zeroing of a part": {
    words: (front) => ["blkdiscard", "-z", "-o", "512", "-l", "4718080", front],
    zeroes: [512, 512 + 4718080],
    isHint: false,
    disks: ["null_blk with a cache"],
  },
};

async function keptBytes(t, device) {
  const { trackers } = await t.client.status();
  return trackers.find((tracker) => tracker.device === device).kept_discard_bytes;
}

/** Waits until all held discards were sent to the original. */
function nothingKept(t, device) {
  return until("no discard is kept", async () => (await keptBytes(t, device)) === 0);
}

for (const [name, { words, zeroes, isHint, disks }] of Object.entries(ACTIONS)) {
  for (const disk of disks) {
    test(`${name}, on ${disk}`, async (t) => {
      const device = await DISKS[disk](t);
      const { front } = await attach(t, device);
      const before = random.bytes(SIZE_BYTES);
      await writeDevice(t, front, before);
      const { id, images, destroy } = await takeSnapshot(t, [device]);
      await run(words(front));
      const after = Buffer.from(before).fill(0, ...zeroes);
      await assertContent(t, images[0], before);
      await assertContent(t, front, isHint ? before : after);
      const { copied_bytes: copied, lost_bytes: lost } = await memberStatus(t, id, device);
      assert.equal([copied > 0, lost], [!isHint, 0]);
      assert.is(await keptBytes(t, device), isHint ? zeroes[1] - zeroes[0] : 0);
      await destroy();
      await nothingKept(t, device);
      await assertContent(t, front, after);
    });
  }
}

test("a discard promises no zeroes, and one that must zero is refused", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const queue = `/sys/block/${front.slice("/dev/".length)}/queue`;
  assert.is(readFileSync(`${queue}/discard_zeroes_data`, "utf8").trim(), "0");
  const { status, stderr } = await attempt(["blkdiscard", "--secure", front]);
  assert.is.not(status, 0);
  assert.match(stderr, /not supported/);
});

test("writes after a discard survive, before, while and after the discard is sent", async (t) => {
  const sizeBytes = 24 * MIB;
  const device = await loopDisk(t, sizeBytes);
  const { front } = await attach(t, device);
  const file = await DeviceFile.open(t, front);
  const block = alignedBuffer(4096);
  /** What each block must hold that was written since it was discarded. */
  let written = new Map();
  async function write(times) {
    for (let time = 0; time < times; time++) {
      const at = random.below(sizeBytes / 4096) * 4096;
      await file.write(random.fill(block), at);
      written.set(at, Buffer.from(block));
    }
  }
  await write(300);
  for (let round = 0; round < 3; round++) {
    const { images, destroy } = await takeSnapshot(t, [device]);
    const frozen = await readDevice(t, front, sizeBytes);
    await run(["blkdiscard", front]);
    written = new Map();
    await write(100);
    await assertContent(t, images[0], frozen);
    await Promise.all([destroy(), write(100)]);
    // The next take comes while some of it may still be kept.
    const next = await takeSnapshot(t, [device]);
    const found = await readDevice(t, front, sizeBytes);
    await assertContent(t, next.images[0], found);
    for (const [at, expected] of written) {
      assert.ok(found.subarray(at, at + 4096).equals(expected), `what was written at ${at}`);
    }
    await next.destroy();
  }
  await nothingKept(t, device);
  const end = await readDevice(t, front, sizeBytes);
  for (let at = 0; at < sizeBytes; at += 4096) {
    const expected = written.get(at) ?? Buffer.alloc(4096);
    assert.ok(end.subarray(at, at + 4096).equals(expected), `the block at ${at} in the end`);
  }
});

test("writes that must be on the disk when they end", async (t) => {
  const device = await nullDisk(t, { sizeMib: SIZE_BYTES / MIB, cacheMib: 4 });
  const { front } = await attach(t, device);
  const before = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, before);
  const { images } = await takeSnapshot(t, [device]);
  await run(["dd", "if=/dev/zero", `of=${front}`, "bs=36k", "count=64", "oflag=direct,dsync"]);
  await assertContent(t, images[0], before);
  await assertContent(t, front, Buffer.from(before).fill(0, 0, 64 * 36 * 1024));
});

/** A loop device with a nearly empty ext4, whose free space holds data of before. */
async function soiledFileSystem(t, sizeBytes) {
  const backing = imageFile(t, sizeBytes);
  const device = await loopDisk(t, sizeBytes, { file: backing });
  const { front } = await attach(t, device);
  // Nothing of it is written later, on its own: what a test counts is what it has done.
  await makeFileSystem("zeroed ext4", front);
  const mounted = await mount(t, front, ["noatime"]);
  writeFileSync(join(mounted.path, "kept"), random.bytes(1_500_000));
  const soil = random.bytes(4 * MIB);
  for (let number = 0; number < 24; number++) {
    writeFileSync(join(mounted.path, `gone${number}`), soil);
  }
  await run(["sync", "-f", mounted.path]);
  for (let number = 0; number < 24; number++) rmSync(join(mounted.path, `gone${number}`));
  await run(["sync", "-f", mounted.path]);
  return { device, front, mounted, allocatedBytes: () => statSync(backing).blocks * 512 };
}

test("fstrim of a nearly empty file system copies nothing, and is sent at destroy", async (t) => {
  const { device, mounted, allocatedBytes } = await soiledFileSystem(t, 512 * MIB);
  const before = await checksums(mounted.path);
  const snapshot = await takeSnapshot(t, [device], { limitBytes: 64 * MIB });
  const full = allocatedBytes();
  assert.ok(full > 24 * 4 * MIB, "the free space holds data");
  const quiet = await memberStatus(t, snapshot.id, device);
  await run(["fstrim", mounted.path]);
  const trimmed = await memberStatus(t, snapshot.id, device);
  assert.is(trimmed.copied_bytes, quiet.copied_bytes);
  assert.equal([trimmed.lost_bytes, trimmed.error_code], [0, 0]);
  assert.ok((await keptBytes(t, device)) > 256 * MIB);
  writeFileSync(join(mounted.path, "new"), random.bytes(3_000_000));
  await run(["sync", "-f", mounted.path]);
  const after = await checksums(mounted.path);
  const image = await mountImage(t, "ext4", snapshot.images[0], ["ro"]);
  await assertChecksums(before, image.path);
  await image.unmount();
  assert.ok(allocatedBytes() >= full, "nothing was discarded yet");
  await snapshot.destroy();
  await nothingKept(t, device);
  assert.ok(allocatedBytes() < full - 20 * 4 * MIB, "the original has heard of it");
  await run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"]);
  await assertChecksums(after, mounted.path);
});

test("mkfs, which first discards everything, keeps what it writes", async (t) => {
  const { device, front, mounted, allocatedBytes } = await soiledFileSystem(t, 512 * MIB);
  const before = await checksums(mounted.path);
  await mounted.unmount();
  const { id, images, destroy } = await takeSnapshot(t, [device], { limitBytes: 64 * MIB });
  const full = allocatedBytes();
  await makeFileSystem("ext4", front);
  const { copied_bytes: copied, lost_bytes: lost } = await memberStatus(t, id, device);
  assert.is(lost, 0);
  // What mkfs writes: tables and a journal, not the 512 MiB that it discards.
  assert.ok(copied < 48 * MIB, `${copied} bytes were copied`);
  const made = await mount(t, front);
  writeFileSync(join(made.path, "new"), random.bytes(3_000_000));
  await run(["sync", "-f", made.path]);
  const after = await checksums(made.path);
  const image = await mountImage(t, "ext4", images[0], ["ro"]);
  await assertChecksums(before, image.path);
  await image.unmount();
  await destroy();
  await nothingKept(t, device);
  assert.ok(allocatedBytes() < full - 20 * 4 * MIB, "the original has heard of it");
  await made.unmount();
  await run(["e2fsck", "-fn", front]);
  const again = await mount(t, front);
  await assertChecksums(after, again.path);
});

test("a discard of the image frees its space and does not affect the original", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const before = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, before);
  const { id, images } = await takeSnapshot(t, [device]);
  const after = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, after);
  const full = await memberStatus(t, id, device);
  await run(["blkdiscard", "-o", "0", "-l", String(SIZE_BYTES / 2), images[0]]);
  const half = await memberStatus(t, id, device);
  assert.is(half.chunks_used, full.chunks_used / 2);
  await assertContent(t, front, after);
  const image = await readDevice(t, images[0], SIZE_BYTES);
  assert.ok(image.subarray(SIZE_BYTES / 2).equals(before.subarray(SIZE_BYTES / 2)));
});

test.run();
