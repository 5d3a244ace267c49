/**
 * blksnap's test_boundary: writes at the edges of chunks change their own sectors and no others, on the
 * original and on the image.
 */
import { Boundaries } from "../lib/boundaries.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { PatternDisk } from "../lib/pattern-disk.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const CHUNKS_TRIED = 3;

/** A disk that ends within a chunk, full of sectors of the round 1. */
async function trackedDisk(t, { random, number = 0, sectorBytes = 512, dsync = false }) {
  const sizeBytes = 4 * MIB + 5 * sectorBytes;
  const device = await loopDisk(t, sizeBytes, { sectorBytes });
  const { front } = await attach(t, device);
  const disk = await PatternDisk.open(t, { device, path: front, sizeBytes, random, number, dsync });
  await disk.fill(1);
  return disk;
}

async function boundariesOf(t, disk, id, blockBytes) {
  const { chunk_bytes: chunkBytes } = await memberStatus(t, id, disk.device);
  return new Boundaries(disk, { blockBytes, chunkBytes, sequence: 1 });
}

/** Some chunks at random, and those without a neighbour on one side. */
function someChunks(random, chunks) {
  const chosen = Array.from({ length: CHUNKS_TRIED }, () => random.below(chunks));
  return [...new Set([0, ...chosen, chunks - 1])];
}

async function single(t, options) {
  const { sectorBytes = 512 } = options;
  const disk = await trackedDisk(t, options);
  const { id, images } = await takeSnapshot(t, [disk.device]);
  const boundaries = await boundariesOf(t, disk, id, sectorBytes);
  await boundaries.snapshotTaken(await disk.image(images[0]));
  for (const chunk of someChunks(options.random, boundaries.chunks)) await boundaries.all(chunk);
  await boundaries.assertAll();
}

for (const seed of seedsOr(["one"])) {
  const random = () => seededRandom(`boundary ${seed}`);

  test(`test_boundary, blocks of 512 bytes (SEED=${seed})`, (t) => single(t, { random: random() }));

  test(`test_boundary, blocks of 4096 bytes, --sync (SEED=${seed})`, (t) =>
    single(t, { random: random(), sectorBytes: 4096, dsync: true }));

  test(`test_boundary, looped: three snapshots, one after the other (SEED=${seed})`, async (t) => {
    const source = random();
    const disk = await trackedDisk(t, { random: source });
    let boundaries;
    for (let round = 0; round < 3; round++) {
      const { id, images, destroy } = await takeSnapshot(t, [disk.device]);
      boundaries ??= await boundariesOf(t, disk, id, 512);
      const image = await disk.image(images[0]);
      await boundaries.snapshotTaken(image);
      await boundaries.all(source.below(boundaries.chunks));
      await boundaries.assertAll();
      await image.close();
      await destroy();
    }
  });

  test(`test_boundary, two devices of one snapshot at once (SEED=${seed})`, async (t) => {
    const source = random();
    const disks = [
      await trackedDisk(t, { random: source, number: 1 }),
      await trackedDisk(t, { random: source, number: 2, sectorBytes: 4096 }),
    ];
    const devices = disks.map(({ device }) => device);
    const { id, images } = await takeSnapshot(t, devices);
    const all = [];
    for (const [index, disk] of disks.entries()) {
      const boundaries = await boundariesOf(t, disk, id, index === 0 ? 512 : 4096);
      await boundaries.snapshotTaken(await disk.image(images[index]));
      all.push(boundaries);
    }
    const chunks = someChunks(source, Math.min(...all.map((each) => each.chunks)));
    for (const chunk of chunks) await Promise.all(all.map((each) => each.all(chunk)));
    for (const boundaries of all) await boundaries.assertAll();
  });
}

test.run();
