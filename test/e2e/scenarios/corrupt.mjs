/**
 * blksnap's test_corrupt: whatever is written to the originals, no sector of an image is newer than its
 * snapshot, in a wrong place or broken.
 */
import * as assert from "uvu/assert";
import { alignedBuffer, DeviceFile } from "../lib/device-file.mjs";
import { loopDisk, nullDisk, ramDisks } from "../lib/disks.mjs";
import { PatternDisk } from "../lib/pattern-disk.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { SECTOR_BYTES } from "../lib/sector-pattern.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const SIZE_BYTES = 4 * MIB;
const SUPERBLOCK_SECTORS = 8;
const LENGTHS = [1, 3, 8, 8, 8, 16, 63, 129, 600];

async function tracked(t, device, { random, number = 0, sizeBytes = SIZE_BYTES }) {
  const { front } = await attach(t, device);
  const disk = await PatternDisk.open(t, { device, path: front, sizeBytes, random, number });
  await disk.fill(1);
  return disk;
}

async function writeSomewhere(disk, random, sequence) {
  const count = random.pick(LENGTHS);
  await disk.write(random.below(disk.sectors - count), count, sequence);
}

/** The "superblock", then ranges all over the disk. */
async function overwrite(disk, random, sequence) {
  await disk.write(0, SUPERBLOCK_SECTORS, sequence);
  for (let writes = 0; writes < 20; writes++) await writeSomewhere(disk, random, sequence);
}

/** Writes sectors of the current round until stopped. */
class Writer {
  written = 0;
  #stopped = false;
  #ended;

  constructor(disk, random, round) {
    this.#ended = this.#run(disk, random, round);
  }

  async #run(disk, random, round) {
    while (!this.#stopped) {
      await writeSomewhere(disk, random, round.sequence);
      this.written++;
    }
  }

  async stop() {
    this.#stopped = true;
    await this.#ended;
  }
}

for (const seed of seedsOr(["one"])) {
  test(`test_corrupt, single (SEED=${seed})`, async (t) => {
    const random = seededRandom(`corrupt ${seed}`);
    const sizeBytes = SIZE_BYTES + 5 * SECTOR_BYTES;
    const disk = await tracked(t, await loopDisk(t, sizeBytes), { random, sizeBytes });
    const { images } = await takeSnapshot(t, [disk.device]);
    const image = await disk.image(images[0]);
    await image.assertIntact(1);
    await overwrite(disk, random, 2);
    await image.assertIntact(1);
    await disk.assertIntact(2);
  });

  test(`test_corrupt, looped: three snapshots of one device (SEED=${seed})`, async (t) => {
    const random = seededRandom(`corrupt looped ${seed}`);
    const [device] = await ramDisks(t, 1, SIZE_BYTES);
    const disk = await tracked(t, device, { random });
    const stores = [storeFolder(t)];
    for (let sequence = 1; sequence <= 3; sequence++) {
      const { images, destroy } = await takeSnapshot(t, [device], { stores });
      const image = await disk.image(images[0]);
      await overwrite(disk, random, sequence + 1);
      await image.assertIntact(sequence);
      await disk.assertIntact(sequence + 1);
      await image.close();
      await destroy();
    }
  });

  test(`test_corrupt, three devices, writers that never stop (SEED=${seed})`, async (t) => {
    const random = seededRandom(`corrupt devices ${seed}`);
    const devices = [
      await loopDisk(t, SIZE_BYTES),
      await nullDisk(t, { sizeMib: SIZE_BYTES / MIB, latencyNs: 200_000 }),
      await nullDisk(t, { sizeMib: SIZE_BYTES / MIB }),
    ];
    const disks = [];
    for (const [number, device] of devices.entries()) {
      disks.push(await tracked(t, device, { random, number }));
    }
    const stores = [storeFolder(t)];
    const round = { sequence: 1 };
    const writers = disks.map((disk) => new Writer(disk, random, round));
    try {
      for (; round.sequence <= 3; ) {
        const before = writers.map(({ written }) => written);
        await until("all have written", () =>
          writers.every(({ written }, index) => written > before[index]),
        );
        const { images, destroy } = await takeSnapshot(t, devices, { stores });
        const newest = round.sequence++;
        for (const [index, disk] of disks.entries()) {
          const image = await disk.image(images[index]);
          await image.assertIntact(newest);
          await image.close();
        }
        await destroy();
      }
    } finally {
      await Promise.all(writers.map((writer) => writer.stop()));
    }
    for (const disk of disks) await disk.assertIntact(round.sequence);
  });
}

test("test_corrupt: the checker finds what is wrong with an image, and where", async (t) => {
  const random = seededRandom("planted");
  const disk = await tracked(t, await loopDisk(t, SIZE_BYTES), { random });
  const { images } = await takeSnapshot(t, [disk.device]);
  const image = await disk.image(images[0]);
  const raw = await DeviceFile.open(t, images[0]);
  const sectors = alignedBuffer(2 * SECTOR_BYTES);
  await raw.readInto(sectors, 100 * SECTOR_BYTES);
  const [whole, torn] = [Buffer.from(sectors), Buffer.from(sectors)];
  torn[SECTOR_BYTES + 300] ^= 1;

  await image.write(500, 3, 2);
  await image.writeBytes(1000, whole);
  await image.writeBytes(100, torn);
  await image.writeBytes(3000, Buffer.alloc(SECTOR_BYTES));
  // Nothing keeps this out of the image: writes that bypass the front are not seen.
  const original = await PatternDisk.open(t, {
    device: disk.device,
    path: disk.device,
    sizeBytes: SIZE_BYTES,
    random,
    number: 7,
  });
  await original.write(8000, 1, 1);

  const found = (await image.faults(1)).map(({ sector, kind }) => `${sector} ${kind}`);
  const expected = ["101 crc", "500 newer", "501 newer", "502 newer", "1000 position"];
  assert.equal(found, [...expected, "1001 position", "3000 magic", "8000 device"]);
  const refusal = await image.assertIntact(1).catch((error) => error.message);
  assert.match(refusal, /8 bad sectors: sector 101: crc .*; diff lists 8 of them as changed$/);
});

test.run();
