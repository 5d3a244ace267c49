/** Bytes in use by something else are refused as a store or a device to attach, under any name. */
import { linkSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { readDevice, writeDevice } from "../lib/device-file.mjs";
import { linear } from "../lib/device-mapper.mjs";
import { imageFile, loopDisk, nullDisk, ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const random = seededRandom("store-conflicts");

/** Fails unless the store is refused, by this name and for this reason. */
async function refuses(t, device, store, code, reason) {
  const options = { devices: [device], stores: [store], limitBytes: 16 * MIB };
  const { snapshots } = await t.client.status();
  const error = await t.client.snapshotCreate(options).catch((failure) => failure);
  assert.is(error.code, code, String(error.message ?? error));
  assert.match(error.message, reason);
  assert.is((await t.client.status()).snapshots.length, snapshots.length);
}

test("the bytes of a tracked device are refused as a store, under any name", async (t) => {
  const [other] = await ramDisks(t, 1, 4 * MIB);
  const file = imageFile(t, 4 * MIB);
  const before = random.bytes(4 * MIB);
  writeFileSync(file, before);
  const link = join(t.folder, t.name("link-"));
  linkSync(file, link);
  t.defer(() => unlinkSync(link));
  const device = await loopDisk(t, 4 * MIB, { file });
  const above = await linear(t, device);
  const tracked = await attach(t, above);
  await attach(t, other);
  // Also where the device is in no snapshot, or in another one.
  for (const member of [above, other]) {
    await refuses(t, member, file, "STORE_ON_DEVICE", /is what \S+ lies on/);
    await refuses(t, member, link, "STORE_ON_DEVICE", /is what \S+ lies on/);
    await refuses(t, member, device, "STORE_ON_DEVICE", /is what \S+ lies on/);
  }
  const twin = await loopDisk(t, 4 * MIB, { file: link });
  await refuses(t, above, twin, "STORE_ON_DEVICE", /lie on the same bytes of/);
  assert.ok(before.equals(await readDevice(t, tracked.front, 4 * MIB)));
  await tracked.detach();
  assert.ok(before.equals(readFileSync(file)));
});

test("the bytes of a tracked file are refused as a store, and so is what lies on them", async (t) => {
  const file = imageFile(t, 16 * MIB);
  const device = await loopDisk(t, 16 * MIB, { file });
  await makeFileSystem("ext4", device);
  await attach(t, file);
  await refuses(t, file, device, "STORE_ON_DEVICE", /lies on \S+disk-/);
  const { path, unmount } = await mount(t, device, ["ro", "noload"]);
  await refuses(t, file, path, "STORE_ON_DEVICE", /lies on \S+disk-/);
  await unmount();
});

test("a file behind a loop device is refused as a store and as a device to attach", async (t) => {
  const [disk, device] = await ramDisks(t, 2, 16 * MIB);
  const file = imageFile(t, 4 * MIB);
  await attach(t, device);
  const overFile = await loopDisk(t, 4 * MIB, { file });
  await refuses(t, device, file, "STORE_BUSY", `${file} is what ${overFile} shows`);
  const overDisk = await loopDisk(t, 16 * MIB, { file: disk });
  await refuses(t, device, disk, "STORE_BUSY", `${disk} is what ${overDisk} shows`);
  await makeFileSystem("ext4", overDisk);
  const { unmount } = await mount(t, overDisk);
  const error = await t.client.attach(disk).catch((failure) => failure);
  assert.is(error.code, "DEVICE_BUSY");
  assert.match(error.message, `in use through ${overDisk}`);
  await unmount();
  await (await attach(t, disk)).detach();
});

test("a store of a snapshot is refused as a store of another one and as a device to attach", async (t) => {
  const [device, other] = await ramDisks(t, 2, 4 * MIB);
  const file = imageFile(t, 8 * MIB);
  await attach(t, device);
  await createSnapshot(t, [device], { stores: [file] });
  const loop = await loopDisk(t, 8 * MIB, { file });
  await refuses(t, other, loop, "STORE_BUSY", /are those of old data of snapshot/);
  await refuses(t, other, file, "STORE_BUSY", /./);
  const error = await t.client.attach(loop).catch((failure) => failure);
  assert.is(error.code, "DEVICE_BUSY");
  assert.match(error.message, "holds old data of snapshot");
});

test("an ext4 whose journal is on a front is refused for a store", async (t) => {
  const journal = await loopDisk(t, 16 * MIB);
  const device = await loopDisk(t, 48 * MIB);
  const { front, detach } = await attach(t, journal);
  await run(["mke2fs", "-q", "-F", "-b", "4096", "-O", "journal_dev", front]);
  await run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", `device=${front}`, device]);
  const { path, unmount } = await mount(t, device);
  const [other] = await ramDisks(t, 1, 4 * MIB);
  await attach(t, other);
  const way = `${path} → journal of ${device} → ${front}`;
  await refuses(t, journal, path, "STORE_ON_DEVICE", way);
  await refuses(t, other, path, "STORE_ON_DEVICE", way);
  await run(["sync", "--file-system", path]);
  await unmount();
  await detach();
});

test("a reflinked copy of an original is another file", async (t) => {
  const disk = await loopDisk(t, 400 * MIB);
  await makeFileSystem("xfs", disk);
  const { path, unmount } = await mount(t, disk);
  const [file, copy] = [join(path, "original"), join(path, "copy")];
  const before = random.bytes(4 * MIB);
  writeFileSync(file, before);
  await run(["cp", "--reflink=always", file, copy]);
  const { front, detach } = await attach(t, file);
  const snapshot = await takeSnapshot(t, [file], { stores: [copy], limitBytes: 16 * MIB });
  const after = random.bytes(4 * MIB);
  await writeDevice(t, front, after);
  assert.ok(before.equals(await readDevice(t, snapshot.images[0], 4 * MIB)), "the image differs");
  assert.ok(after.equals(await readDevice(t, front, 4 * MIB)), "the front differs");
  await snapshot.destroy();
  await detach();
  assert.ok(after.equals(readFileSync(file)), "the original differs");
  await unmount();
});

test("swap is refused as a store and as an original", async (t) => {
  const disk = await loopDisk(t, 32 * MIB);
  await makeFileSystem("ext4", disk);
  const { path, unmount } = await mount(t, disk);
  const [file, link] = [join(path, "swap"), join(path, "link")];
  writeFileSync(file, Buffer.alloc(4 * MIB, 1), { mode: 0o600 });
  await run(["mkswap", file]);
  await run(["swapon", file]);
  t.defer(() => run(["swapoff", file], { status: "any" }));
  linkSync(file, link);
  const [device] = await ramDisks(t, 1, 4 * MIB);
  await attach(t, device);
  await refuses(t, device, link, "STORE_BUSY", `${link} is used as swap`);
  const error = await t.client.attach(link).catch((failure) => failure);
  assert.is(error.code, "DEVICE_BUSY");
  await run(["swapoff", file]);
  await unmount();
});

/** Undefined, with a note, on a kernel without zones. */
async function zonedDisk(t) {
  try {
    return await nullDisk(t, { sizeMib: 16, zoneMib: 4 });
  } catch (error) {
    if (error.code !== "EINVAL" || process.env.CI) throw error;
    console.log("this kernel knows no zoned disks: nothing is tested");
    return undefined;
  }
}

test("a zoned disk is refused with a named error, as an original and as a store", async (t) => {
  const disk = await zonedDisk(t);
  if (disk === undefined) return;
  const error = await t.client.attach(disk).catch((failure) => failure);
  assert.is(error.code, "DEVICE_ZONED", String(error.message ?? error));
  const device = await loopDisk(t, MIB);
  await attach(t, device);
  await refuses(t, device, disk, "STORE_INVALID", "is a zoned disk");
});

test.run();
