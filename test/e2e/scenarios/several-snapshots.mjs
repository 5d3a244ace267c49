/** Concurrent snapshots and disks that must not affect each other. */
import * as assert from "uvu/assert";
import { assertContent, writeDevice } from "../lib/device-file.mjs";
import { interleavedDisks } from "../lib/device-mapper.mjs";
import { loopDisk, nullDisk } from "../lib/disks.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const random = seededRandom("several snapshots");
const SIZE_BYTES = 6 * MIB;

async function fullDisk(t) {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const content = random.bytes(SIZE_BYTES);
  await writeDevice(t, front, content);
  return { device, front, content };
}

async function overwrite(t, disk) {
  disk.content = random.bytes(SIZE_BYTES);
  await writeDevice(t, disk.front, disk.content);
}

test("9000-two_snapshots: two devices, two storages, destroyed in reverse order", async (t) => {
  const [first, second] = [await fullDisk(t), await fullDisk(t)];
  const [firstStart, secondStart] = [first.content, second.content];
  const one = await takeSnapshot(t, [first.device], { stores: [storeFolder(t)] });
  await overwrite(t, first);
  const other = await takeSnapshot(t, [second.device], { stores: ["memory:"] });
  await Promise.all([overwrite(t, first), overwrite(t, second)]);
  await assertContent(t, one.images[0], firstStart);
  await assertContent(t, other.images[0], secondStart);
  await other.destroy();
  await assertContent(t, one.images[0], firstStart);
  await one.destroy();
  for (const { front, content } of [first, second]) await assertContent(t, front, content);
});

test("snapshots are destroyed in each state: empty, created, taken", async (t) => {
  const disk = await fullDisk(t);
  const empty = await createSnapshot(t, []);
  await empty.destroy();
  const created = await createSnapshot(t, [disk.device]);
  await overwrite(t, disk);
  await created.destroy();
  const taken = await takeSnapshot(t, [disk.device]);
  await taken.destroy();
  assert.equal(await t.client.snapshotCollect(), []);
  await assertContent(t, disk.front, disk.content);
});

// blksnap's diff_storage.cpp: what is written beyond its own extents hits the other side.
test("diff_storage: original and store lie on one disk, in turn", async (t) => {
  const disk = await nullDisk(t, { sizeMib: 20 });
  const { paths, sizeBytes } = await interleavedDisks(t, disk, MIB);
  const [device, store] = paths;
  const { front, detach } = await attach(t, device);
  const before = random.bytes(sizeBytes);
  await writeDevice(t, front, before);
  const snapshot = await takeSnapshot(t, [device], { stores: [store] });
  const after = random.bytes(sizeBytes);
  await writeDevice(t, front, after);
  await assertContent(t, snapshot.images[0], before);
  await assertContent(t, front, after);
  await snapshot.destroy();
  await detach();
  await assertContent(t, device, after);
});

test.run();
