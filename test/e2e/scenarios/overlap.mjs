/** Tracked data cannot be tracked again through another device. */
import { linkSync, symlinkSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { linear } from "../lib/device-mapper.mjs";
import { imageFile, loopDisk, nullDisk, partition } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const EBUSY = 16;

/** Fails unless attach is refused, and names the relation of both devices. */
async function refused(t, path, ...chain) {
  const { trackers } = await t.client.status();
  const error = await t.client.attach(path).catch((reason) => reason);
  assert.is(error.code, "DEVICE_OVERLAPS", String(error));
  assert.is(error.errno, EBUSY);
  assert.ok(error.message.endsWith(`: ${chain.join(" → ")}`), error.message);
  assert.is((await t.client.status()).trackers.length, trackers.length);
}

test("a disk and its partition overlap, two partitions do not", async (t) => {
  const disk = await nullDisk(t, { sizeMib: 16 });
  const [first, second] = await partition(disk, [4, 8]);
  const one = await attach(t, first);
  await refused(t, disk, first, disk);
  const other = await attach(t, second);
  await one.detach();
  await other.detach();
  await attach(t, disk);
  await refused(t, second, second, disk);
});

test("partitions, device-mapper nodes and loop devices above a front are refused", async (t) => {
  const disk = await nullDisk(t, { sizeMib: 16 });
  const { front } = await attach(t, disk);
  const [part] = await partition(front, [4]);
  await refused(t, part, part, front, disk);
  const node = await linear(t, part);
  await refused(t, node, node, part, front, disk);
  const loop = await loopDisk(t, 4 * MIB, { file: node });
  await refused(t, loop, loop, node, part, front, disk);
});

test("a disk below a tracked device-mapper node is refused", async (t) => {
  const disk = await nullDisk(t, { sizeMib: 8 });
  const node = await linear(t, disk);
  await attach(t, node);
  await refused(t, disk, node, disk);
});

test("an image file on a mounted front is refused", async (t) => {
  const disk = await nullDisk(t, { sizeMib: 32 });
  const { front } = await attach(t, disk);
  await makeFileSystem("ext4", front);
  const { path } = await mount(t, front);
  const file = imageFile(t, MIB, path);
  await refused(t, file, file, `ext4 on ${front}`, disk);
});

test("a loop device and its file overlap", async (t) => {
  const file = imageFile(t, 4 * MIB);
  const loop = await loopDisk(t, 4 * MIB, { file });
  const attached = await attach(t, file);
  await refused(t, loop, loop, file);
  await attached.detach();
  await attach(t, loop);
  await refused(t, file, loop, file);
});

test("two loop devices over one file overlap, even by a hard link", async (t) => {
  const file = imageFile(t, 4 * MIB);
  const link = join(t.folder, t.name("link-"));
  linkSync(file, link);
  t.defer(() => unlinkSync(link));
  const [one, other] = [
    await loopDisk(t, 4 * MIB, { file }),
    await loopDisk(t, 4 * MIB, { file: link }),
  ];
  const { detach } = await attach(t, one);
  const error = await t.client.attach(other).catch((reason) => reason);
  assert.is(error.code, "DEVICE_OVERLAPS", String(error));
  assert.match(error.message, "lie on the same bytes of");
  await detach();
  await attach(t, other);
});

test("a tracked device is identified by itself, not by its name at attach", async (t) => {
  const file = imageFile(t, MIB);
  const [one, other] = [await loopDisk(t, MIB, { file }), await loopDisk(t, MIB)];
  const bay = join(t.folder, t.name("disk-in-bay-"));
  symlinkSync(one, bay);
  const first = await t.client.attach(bay);
  t.defer(() => t.client.detach(first.front));
  unlinkSync(bay);
  // No other device has the name: it still means this device.
  assert.is((await t.client.attach(bay)).front, first.front);
  await refused(t, file, one, file);
  const { message } = await t.client.attach(file).catch((reason) => reason);
  assert.match(message, `${bay} (now ${one}), which is tracked`);

  // Another disk under the same name.
  symlinkSync(other, bay);
  t.defer(() => unlinkSync(bay));
  const error = await t.client.detach(bay).catch((reason) => reason);
  assert.is(error.code, "NOT_ATTACHED");
  assert.match(error.hint, first.front);
  const second = await t.client.attach(bay);
  assert.is(second.already_attached, false);
  assert.is((await t.client.detach(bay)).front, second.front);
  assert.is((await t.client.detach(one)).front, first.front);
  await t.client.attach(one);
});

test.run();
