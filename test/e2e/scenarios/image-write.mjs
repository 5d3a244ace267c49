/** Concurrent writers on an image and its original: each sees only its own data. */

import { writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../lib/command.mjs";
import { alignedBuffer, assertContent, DeviceFile, writeDevice } from "../lib/device-file.mjs";
import { loopDisk, nullDisk } from "../lib/disks.mjs";
import {
  assertChecksums,
  checkFileSystem,
  checksums,
  makeFileSystem,
  mount,
  mountImage,
} from "../lib/file-systems.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const random = seededRandom("image write");

function dropCaches() {
  writeFileSync("/proc/sys/vm/drop_caches", "3");
}

/** Files of random size, some of them written again, by two writers at once. */
async function writeFiles(folder, prefix) {
  const writer = async (name) => {
    for (let number = 0; number < 8; number++) {
      const path = join(folder, `${prefix}-${name}-${number % 6}`);
      await writeFile(path, random.bytes(1 + random.below(400_000)));
    }
  };
  await Promise.all([writer("a"), writer("b")]);
  await run(["sync", "-f", folder]);
}

test("6000-snapimage_write: xfs, writers on image and original, remounted", async (t) => {
  const device = await nullDisk(t, { sizeMib: 320 });
  const { front } = await attach(t, device);
  await makeFileSystem("xfs", front);
  const original = await mount(t, front);
  const stores = [storeFolder(t)];
  await writeFiles(original.path, "before");
  for (let round = 0; round < 2; round++) {
    const before = await checksums(original.path);
    const snapshot = await takeSnapshot(t, [device], { stores });
    const image = await mountImage(t, "xfs", snapshot.images[0]);
    await Promise.all([
      writeFiles(original.path, `original-${round}`),
      writeFiles(image.path, `image-${round}`),
    ]);
    await assertChecksums(before, image.path);
    const [ofOriginal, ofImage] = [await checksums(original.path), await checksums(image.path)];
    await image.unmount();
    dropCaches();
    const again = await mountImage(t, "xfs", snapshot.images[0], ["ro"]);
    await assertChecksums(ofImage, again.path);
    await assertChecksums(ofOriginal, original.path);
    await again.unmount();
    await checkFileSystem("xfs", snapshot.images[0]);
    await snapshot.destroy();
  }
  await original.unmount();
  await checkFileSystem("xfs", front);
});

test("6100-snapimage_write: 1 KiB written past the cache, away from the edges of chunks", async (t) => {
  const sizeBytes = 6 * MIB;
  const device = await loopDisk(t, sizeBytes);
  const { front } = await attach(t, device);
  const original = random.bytes(sizeBytes);
  await writeDevice(t, front, original);
  const { images } = await takeSnapshot(t, [device]);
  const expected = Buffer.from(original);
  const image = await DeviceFile.open(t, images[0]);
  const buffer = alignedBuffer(1024);
  for (const offset of [
    126 * 1024,
    2 * MIB + 126 * 1024,
    4 * MIB + 126 * 1024,
    512,
    256 * 1024 - 512,
  ]) {
    random.fill(buffer).copy(expected, offset);
    await image.write(buffer, offset);
    await image.readInto(buffer, offset);
    if (!buffer.equals(expected.subarray(offset, offset + 1024))) {
      throw new Error(`what was written at ${offset} is not what is read`);
    }
  }
  await image.close();
  await assertContent(t, images[0], expected);
  await assertContent(t, front, original);
});

test.run();
