/** Concurrent random reads and writes of front and image, each against its own model. */
import { assertContent, writeDevice } from "../lib/device-file.mjs";
import { lateReadingDisk } from "../lib/device-mapper.mjs";
import { imageFile, loopDisk, nullDisk } from "../lib/disks.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { RandomIo } from "../lib/random-io.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const REQUESTS = 250;
const DEPTH = 6;

/** Sizes that are not a multiple of a chunk, and where the sector allows it none of a block either. */
const KINDS = {
  "disk of 512-byte sectors": {
    make: (t) => loopDisk(t, 12 * MIB + 7 * 512),
    sizeBytes: 12 * MIB + 7 * 512,
    sectorBytes: 512,
  },
  "disk of 4096-byte sectors": {
    make: (t) => loopDisk(t, 12 * MIB + 3 * 4096, { sectorBytes: 4096 }),
    sizeBytes: 12 * MIB + 3 * 4096,
    sectorBytes: 4096,
  },
  "regular file": {
    make: (t) => imageFile(t, 10 * MIB + 5 * 512),
    sizeBytes: 10 * MIB + 5 * 512,
    sectorBytes: 512,
  },
  "disk with a latency": {
    make: (t) => nullDisk(t, { sizeMib: 8, latencyNs: 200_000 }),
    sizeBytes: 8 * MIB,
    sectorBytes: 512,
  },
  // An image read of the original may then find what was written after the read began.
  "disk whose reads come late": {
    make: async (t) => lateReadingDisk(t, await loopDisk(t, 6 * MIB), 6 * MIB, 8),
    sizeBytes: 6 * MIB,
    sectorBytes: 512,
  },
};

async function playUnderSnapshot(t, { device, front, sectorBytes, model, random, direct }) {
  const snapshot = await takeSnapshot(t, [device]);
  const [image] = snapshot.images;
  const frozen = Buffer.from(model);
  const common = { random, sectorBytes, direct };
  const frontIo = await RandomIo.open(t, front, { ...common, name: "front", model });
  const imageIo = await RandomIo.open(t, image, { ...common, name: "image", model: frozen });
  await Promise.all([frontIo.play(REQUESTS, DEPTH), imageIo.play(REQUESTS, DEPTH)]);
  await frontIo.close();
  await imageIo.close();
  await assertContent(t, image, frozen);
  await assertContent(t, front, model);
  await snapshot.destroy();
}

async function play(t, { make, sizeBytes, sectorBytes }, seed) {
  const random = seededRandom(seed);
  const device = await make(t);
  const { front, detach } = await attach(t, device);
  const model = random.bytes(sizeBytes);
  await writeDevice(t, front, model);
  const setting = { device, front, sectorBytes, model, random };
  await playUnderSnapshot(t, { ...setting, direct: true });
  await playUnderSnapshot(t, { ...setting, direct: false });
  await detach();
  await assertContent(t, device, model);
}

for (const [name, kind] of Object.entries(KINDS)) {
  for (const seed of seedsOr(["one"])) {
    test(`${name}: front and image are what their models say (SEED=${seed})`, (t) =>
      play(t, kind, `${name} ${seed}`));
  }
}

test.run();
