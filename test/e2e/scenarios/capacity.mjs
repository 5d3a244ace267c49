/** An original that shrinks or grows while it is tracked. */
import { truncateSync } from "node:fs";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { assertContent, writeDevice } from "../lib/device-file.mjs";
import { imageFile, loopDisk } from "../lib/disks.mjs";
import { canUpdateSize, sizeOf } from "../lib/kernel-growth.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const random = seededRandom("capacity");
const SIZE_BYTES = 4 * MIB;
const EFAULT = 14;

/** Both kinds of original, with a way to give them another size. */
const ORIGINALS = {
  "loop device": async (t) => {
    const file = imageFile(t, SIZE_BYTES);
    const path = await loopDisk(t, SIZE_BYTES, { file });
    async function resize(sizeBytes) {
      truncateSync(file, sizeBytes);
      await run(["losetup", "--set-capacity", path]);
    }
    return { path, resize };
  },
  "image file": async (t) => {
    const path = imageFile(t, SIZE_BYTES);
    return { path, resize: async (sizeBytes) => truncateSync(path, sizeBytes) };
  },
};

async function capacities(t) {
  const { trackers } = await t.client.status();
  const [{ capacity_bytes: tracked, original_capacity_bytes: now }] = trackers;
  return { tracked, now };
}

for (const [name, make] of Object.entries(ORIGINALS)) {
  test(`${name}, shrunk: no take until it has its former size, or is attached again`, async (t) => {
    const { path, resize } = await make(t);
    const { front, detach } = await attach(t, path);
    const content = random.bytes(SIZE_BYTES);
    await writeDevice(t, front, content);
    const { id, destroy } = await createSnapshot(t, [path]);
    await resize(SIZE_BYTES - MIB);
    assert.equal(await capacities(t), { tracked: SIZE_BYTES, now: SIZE_BYTES - MIB });
    const error = await t.client.snapshotTake(id).catch((reason) => reason);
    assert.is(error.code, "DEVICE_CAPACITY_CHANGED", String(error));
    assert.is(error.errno, EFAULT);
    assert.match(error.message, new RegExp(`${SIZE_BYTES} bytes.*now ${SIZE_BYTES - MIB}`));
    await resize(SIZE_BYTES);
    const { images } = await t.client.snapshotTake(id);
    await assertContent(t, images[0].image, Buffer.from(content).fill(0, SIZE_BYTES - MIB));
    await destroy();
    await resize(SIZE_BYTES - MIB);
    await detach();
    const again = await attach(t, path);
    assert.is(await sizeOf(again.front), SIZE_BYTES - MIB);
    const snapshot = await takeSnapshot(t, [path]);
    await assertContent(t, snapshot.images[0], content.subarray(0, SIZE_BYTES - MIB));
  });

  test(`${name}, grown: front and image follow; or, if the kernel cannot, when it is attached again`, async (t) => {
    const { path, resize } = await make(t);
    const { front, detach } = await attach(t, path);
    const content = random.bytes(SIZE_BYTES);
    await writeDevice(t, front, content);
    const before = await t.client.cbtInfo(path);
    await resize(SIZE_BYTES + MIB);
    const first = await takeSnapshot(t, [path]);
    const sizeBytes = canUpdateSize ? SIZE_BYTES + MIB : SIZE_BYTES;
    assert.equal(await capacities(t), { tracked: sizeBytes, now: SIZE_BYTES + MIB });
    for (const device of [front, first.images[0]]) assert.is(await sizeOf(device), sizeBytes);
    const why = (await t.client.status()).trackers[0].capacity_why;
    if (canUpdateSize) assert.is(why, null);
    else assert.match(why, /Linux 6\.16.*detach the device and attach it again/);
    await writeDevice(t, front, random.bytes(SIZE_BYTES));
    await assertContent(t, first.images[0], Buffer.concat([content], sizeBytes));
    await first.destroy();
    await detach();
    const again = await attach(t, path);
    assert.is(await sizeOf(again.front), SIZE_BYTES + MIB);
    const after = await t.client.cbtInfo(path);
    assert.is(after.capacity_bytes, SIZE_BYTES + MIB);
    assert.is.not(after.generation_id, before.generation_id);
  });
}

test.run();
