/** Discards, write-zeroes and forced writes on the front: the image keeps the old data. */
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { assertContent, readDevice, writeDevice } from "../lib/device-file.mjs";
import { loopDisk, nullDisk } from "../lib/disks.mjs";
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

const test = scenario(import.meta.url);
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
  },
  "discard of an odd part": {
    words: (front) => ["blkdiscard", "-o", "69632", "-l", "5255168", front],
    zeroes: [69632, 69632 + 5255168],
  },
  "zeroing of a part": {
    words: (front) => ["blkdiscard", "-z", "-o", "512", "-l", "4718080", front],
    zeroes: [512, 512 + 4718080],
  },
};

for (const [diskName, makeDisk] of Object.entries(DISKS)) {
  for (const [name, { words, zeroes }] of Object.entries(ACTIONS)) {
    test(`${name}, on ${diskName}`, async (t) => {
      const device = await makeDisk(t);
      const { front } = await attach(t, device);
      const before = random.bytes(SIZE_BYTES);
      await writeDevice(t, front, before);
      const { images } = await takeSnapshot(t, [device]);
      await run(words(front));
      await assertContent(t, images[0], before);
      const after = Buffer.from(before).fill(0, ...zeroes);
      await assertContent(t, front, after);
    });
  }
}

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

test("fstrim after files were deleted", async (t) => {
  const device = await loopDisk(t, 32 * MIB);
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const mounted = await mount(t, front);
  for (let number = 0; number < 6; number++) {
    writeFileSync(join(mounted.path, `file${number}`), random.bytes(1_500_000));
  }
  const before = await checksums(mounted.path);
  const snapshot = await takeSnapshot(t, [device]);
  for (const name of readdirSync(mounted.path)) {
    if (name.startsWith("file")) rmSync(join(mounted.path, name));
  }
  await run(["sync", "-f", mounted.path]);
  await run(["fstrim", mounted.path]);
  const { copied_bytes: copied } = await memberStatus(t, snapshot.id, device);
  assert.ok(copied >= 6 * 1_500_000, `only ${copied} bytes were saved: was nothing discarded?`);
  const image = await mountImage(t, "ext4", snapshot.images[0], ["ro"]);
  await assertChecksums(before, image.path);
  await image.unmount();
});

test("a discard of the image gives its space back and leaves the original alone", async (t) => {
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
