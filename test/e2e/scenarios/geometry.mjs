/** Sizes of chunks and CBT blocks other than the defaults, as set by the daemon's options. */
import * as assert from "uvu/assert";
import { Boundaries } from "../lib/boundaries.mjs";
import { ChangeHistory } from "../lib/change-history.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { assertContent, writeDevice } from "../lib/device-file.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { PatternDisk } from "../lib/pattern-disk.mjs";
import { seededRandom } from "../lib/random.mjs";
import { RandomIo } from "../lib/random-io.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const SIZE_BYTES = 3 * MIB + 5 * 512;
const EINVAL = 22;

async function startDaemon(t, args) {
  t.daemon = await Daemon.start({ args });
  t.defer(() => t.daemon.stop());
}

async function assertGeometry(t, device, { chunkBytes, blockBytes }) {
  const { id, destroy } = await takeSnapshot(t, [device]);
  assert.is((await memberStatus(t, id, device)).chunk_bytes, chunkBytes);
  assert.is((await t.client.cbtInfo(device)).block_bytes, blockBytes);
  await destroy();
}

async function playRandomIo(t, { device, front, random }) {
  const model = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, model);
  const { images, destroy } = await takeSnapshot(t, [device]);
  const frozen = Buffer.from(model);
  const common = { random, sectorBytes: 512 };
  const frontIo = await RandomIo.open(t, front, { ...common, name: "front", model });
  const imageIo = await RandomIo.open(t, images[0], { ...common, name: "image", model: frozen });
  await Promise.all([frontIo.play(50, 4), imageIo.play(50, 4)]);
  await frontIo.close();
  await imageIo.close();
  await assertContent(t, images[0], frozen);
  await assertContent(t, front, model);
  await destroy();
}

async function checkBoundaries(t, { device, front, random, chunkBytes }) {
  const options = { device, path: front, sizeBytes: SIZE_BYTES, random };
  const disk = await PatternDisk.open(t, options);
  await disk.fill(1);
  const { images, destroy } = await takeSnapshot(t, [device]);
  const boundaries = new Boundaries(disk, { blockBytes: 512, chunkBytes, sequence: 1 });
  const image = await disk.image(images[0]);
  await boundaries.snapshotTaken(image);
  for (const chunk of [1, boundaries.chunks - 1]) await boundaries.all(chunk);
  await boundaries.assertAll();
  await disk.close();
  await image.close();
  await destroy();
}

/** @param {object} state the device under test, and what its geometry is to be */
async function checkGeometry(t, { chunkBytes, blockBytes, random }) {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front, detach } = await attach(t, device);
  const state = { device, front, random, chunkBytes };
  const options = { device, front, sizeBytes: SIZE_BYTES, blockBytes, random };
  const history = await ChangeHistory.begin(t, options);
  for (let round = 0; round < 2; round++) await history.round(6);
  await history.close();
  await assertGeometry(t, device, { chunkBytes, blockBytes });
  await playRandomIo(t, state);
  await checkBoundaries(t, state);
  await detach();
}

/** A device whose chunks are larger than the slots of a snapshot cannot be added to it. */
async function checkChunkOverSlot(t) {
  const [small, large] = [await loopDisk(t, MIB), await loopDisk(t, 16 * MIB)];
  const { id, destroy } = await createSnapshot(t, [small]);
  const error = await t.client.snapshotAdd(id, large).catch((reason) => reason);
  assert.is(error.code, "CHUNK_OVER_SLOT", String(error));
  assert.is(error.errno, EINVAL);
  assert.match(error.message, /chunks of 1048576 bytes, the slots of snapshot .* have 262144/);
  const { trackers } = await t.client.status();
  assert.equal(
    trackers.map(({ device }) => device),
    [small],
  );
  await destroy();
  // Named at once, both get slots that fit.
  const both = await takeSnapshot(t, [small, large]);
  const members = await Promise.all(
    [small, large].map((device) => memberStatus(t, both.id, device)),
  );
  assert.equal(
    members.map(({ chunk_bytes: size }) => size),
    [262_144, MIB],
  );
  await both.destroy();
  for (const device of [small, large]) await t.client.detach(device);
}

test("chunks of 4 KiB, CBT blocks of 512 bytes: diff, random I/O, edges of chunks", async (t) => {
  await startDaemon(t, ["--chunk-minimum-shift", "12", "--tracking-block-minimum-shift", "9"]);
  await checkGeometry(t, { chunkBytes: 4096, blockBytes: 512, random: seededRandom("small") });
});

test("chunks and CBT blocks of 1 MiB: the same; not for a snapshot of smaller slots", async (t) => {
  await startDaemon(t, [
    ...["--chunk-maximum-count-shift", "2", "--chunk-maximum-shift", "20"],
    ...["--tracking-block-maximum-count", "4", "--tracking-block-maximum-shift", "20"],
  ]);
  await checkGeometry(t, { chunkBytes: MIB, blockBytes: MIB, random: seededRandom("large") });
  await checkChunkOverSlot(t);
});

test.run();
