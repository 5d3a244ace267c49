/** Every kind of store keeps the old data, grows as it may, and leaves what it should. */
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { alignedBuffer, DeviceFile, readDevice, writeDevice } from "../lib/device-file.mjs";
import { linear } from "../lib/device-mapper.mjs";
import { imageFile, loopDisk, nullDisk, ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import {
  attach,
  createSnapshot,
  MIB,
  memberStatus,
  storeFolder,
  takeSnapshot,
} from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url);
const random = seededRandom("stores");

async function storesOf(t, id) {
  const { snapshots } = await t.client.status();
  return snapshots.find((snapshot) => snapshot.id === id);
}

/** Overwrites a whole device under a snapshot with these stores; the image must keep all of it. */
async function overwriteAll(t, device, sizeBytes, stores, limitBytes) {
  const { front } = await attach(t, device);
  const before = random.bytes(sizeBytes);
  await writeDevice(t, front, before);
  const snapshot = await takeSnapshot(t, [device], { stores, limitBytes });
  await writeDevice(t, front, random.bytes(sizeBytes));
  assert.ok(before.equals(await readDevice(t, snapshot.images[0], sizeBytes)), "the image differs");
  assert.is((await memberStatus(t, snapshot.id, device)).lost_bytes, 0);
  return snapshot;
}

test("a regular file that was made before: it grows, and stays", async (t) => {
  const file = imageFile(t, 4096);
  const device = await loopDisk(t, 12 * MIB);
  const { id, destroy } = await overwriteAll(t, device, 12 * MIB, [file], 64 * MIB);
  const { stores } = await storesOf(t, id);
  assert.is(stores[0].kind, "file");
  await destroy();
  const { size } = statSync(file);
  assert.ok(size >= 12 * MIB && size <= 64 * MIB, `the file has ${size} bytes`);
  truncateSync(file);
});

test("a file larger than the limit is used up to it, and stays as large", async (t) => {
  const file = imageFile(t, 32 * MIB);
  const device = await loopDisk(t, 4 * MIB);
  const { id, destroy } = await overwriteAll(t, device, 4 * MIB, [file], 8 * MIB);
  const { stores } = await storesOf(t, id);
  assert.ok(stores[0].allocated_bytes <= 8 * MIB, `${stores[0].allocated_bytes} bytes`);
  await destroy();
  assert.is(statSync(file).size, 32 * MIB);
});

test("a file that somebody cuts off: what was in it is lost, and never reads as zeros", async (t) => {
  const file = imageFile(t, 4096);
  const sizeBytes = 4 * MIB;
  const device = await loopDisk(t, sizeBytes);
  const { front } = await attach(t, device);
  const before = random.bytes(sizeBytes);
  await writeDevice(t, front, before);
  const { id, images, destroy } = await takeSnapshot(t, [device], {
    stores: [file],
    limitBytes: 64 * MIB,
  });
  t.expectKernelMessages(/I\/O error/);
  const half = random.bytes(sizeBytes / 2);
  await writeDevice(t, front, half);
  truncateSync(file);
  await until("it is noticed", async () => {
    const { error_code } = await memberStatus(t, id, device);
    return error_code !== 0;
  });
  // Copies make the file longer again; what was cut off would be a hole of zeros.
  await writeDevice(t, front, random.bytes(sizeBytes));
  const { lost_bytes: lostBytes } = await memberStatus(t, id, device);
  assert.ok(lostBytes >= sizeBytes / 2, `${lostBytes} bytes are lost`);
  const image = await DeviceFile.open(t, images[0], { readOnly: true });
  const piece = alignedBuffer(4096);
  for (let at = 0; at < sizeBytes; at += piece.length) {
    const read = await image.readInto(piece, at).then(
      () => true,
      () => false,
    );
    if (read) assert.ok(piece.equals(before.subarray(at, at + piece.length)), `wrong at ${at}`);
  }
  await image.close();
  await destroy();
  truncateSync(file);
});

test("a folder: one file that nobody else may read, gone with the snapshot", async (t) => {
  const folder = storeFolder(t);
  const device = await loopDisk(t, 8 * MIB);
  const { id, destroy } = await overwriteAll(t, device, 8 * MIB, [folder], 64 * MIB);
  assert.is((await storesOf(t, id)).stores[0].kind, "directory");
  const names = readdirSync(folder);
  assert.ok(names.length <= 1, names.join(", "));
  for (const name of names) assert.is(statSync(join(folder, name)).mode & 0o777, 0o600);
  await destroy();
  assert.equal(readdirSync(folder), []);
});

test("a block device, then memory", async (t) => {
  const [disk, device] = await ramDisks(t, 2, 8 * MIB);
  const first = await overwriteAll(t, device, 8 * MIB, [disk, "memory:"], 64 * MIB);
  const { stores } = await storesOf(t, first.id);
  assert.equal(
    stores.map(({ kind }) => kind),
    ["block", "memory"],
  );
  await first.destroy();
  const second = await takeSnapshot(t, [device], { stores: ["memory:"], limitBytes: 16 * MIB });
  assert.is((await storesOf(t, second.id)).stores[0].kind, "memory");
});

/** One sector, past the page cache. */
function directSector(from, to, { skip = 0, seek = 0 }) {
  const flags = [...(from.startsWith("/dev/ublk") ? ["iflag=direct"] : [])];
  if (to.startsWith("/dev/ublk")) flags.push("oflag=direct", "conv=notrunc");
  const words = [`if=${from}`, `of=${to}`, "bs=512", "count=1", `skip=${skip}`, `seek=${seek}`];
  return run(["dd", ...words, ...flags, "status=none"]);
}

/** Reads and writes single sectors of an image whose old data is in the store. */
async function useSectors(t, image, before) {
  const file = join(t.folder, t.name("sector-"));
  t.defer(() => rmSync(file, { force: true }));
  for (const sector of [0, 1, 9, 777]) {
    await directSector(image, file, { skip: sector });
    const found = readFileSync(file);
    assert.ok(found.equals(before.subarray(sector * 512, (sector + 1) * 512)), `sector ${sector}`);
    writeFileSync(file, random.bytes(512));
    await directSector(file, image, { seek: sector + 2 });
    const written = readFileSync(file);
    await directSector(image, file, { skip: sector + 2 });
    assert.ok(readFileSync(file).equals(written), `written sector ${sector + 2}`);
  }
}

test("logical blocks of members and stores of any size, in any order", async (t) => {
  for (const storeSectorBytes of [512, 4096]) {
    for (const sectorBytes of [
      [4096, 512],
      [512, 4096],
    ]) {
      for (const isAdded of [true, false]) {
        const store = await loopDisk(t, 16 * MIB, { sectorBytes: storeSectorBytes });
        const devices = [
          await loopDisk(t, 4 * MIB, { sectorBytes: sectorBytes[0] }),
          await loopDisk(t, 4 * MIB, { sectorBytes: sectorBytes[1] }),
        ];
        const fronts = [await attach(t, devices[0]), await attach(t, devices[1])];
        const before = [];
        for (const { front } of fronts) {
          before.push(random.bytes(4 * MIB));
          await writeDevice(t, front, before.at(-1));
        }
        const first = isAdded ? devices.slice(0, 1) : devices;
        const { id, destroy } = await createSnapshot(t, first, { stores: [store] });
        if (isAdded) await t.client.snapshotAdd(id, devices[1]);
        const { images } = await t.client.snapshotTake(id);
        for (const [index, { front, device }] of fronts.entries()) {
          await writeDevice(t, front, random.bytes(4 * MIB));
          const { image } = images.find((one) => one.device === device);
          if (sectorBytes[index] === 512) await useSectors(t, image, before[index]);
          else assert.ok(before[index].equals(await readDevice(t, image, 4 * MIB)));
          assert.is((await memberStatus(t, id, device)).lost_bytes, 0);
        }
        await destroy();
        for (const { detach } of fronts) await detach();
      }
    }
  }
});

test("read-only images refuse writes in the kernel, and go on being right", async (t) => {
  const device = await loopDisk(t, 4 * MIB);
  const { front } = await attach(t, device);
  const created = await ctl(
    ...["snapshot_create", "--device", device, "--file", storeFolder(t), "--limit", "16M"],
    "--read-only-images",
  );
  const id = created.stdout.trim();
  t.defer(() => t.client.snapshotDestroy(id));
  const [{ image }] = (await t.client.snapshotTake(id)).images;
  assert.is((await run(["blockdev", "--getro", image])).trim(), "1");
  const before = await readDevice(t, image, 4 * MIB);
  const written = await attempt(["dd", "if=/dev/urandom", `of=${image}`, "bs=4k", "count=1"]);
  assert.match(written.stderr, /Operation not permitted|Read-only/);
  await writeDevice(t, front, random.bytes(4 * MIB));
  assert.ok(before.equals(await readDevice(t, image, 4 * MIB)));
  const status = await storesOf(t, id);
  assert.is(status.read_only_images, true);
});

test("two stores are filled in their order", async (t) => {
  const [disk] = await ramDisks(t, 1, 4 * MIB);
  const device = await loopDisk(t, 12 * MIB);
  const { id } = await overwriteAll(t, device, 12 * MIB, [disk, storeFolder(t)], 64 * MIB);
  const [first, second] = (await storesOf(t, id)).stores;
  assert.is(first.used_bytes, 4 * MIB);
  assert.is(second.used_bytes, 8 * MIB);
});

test("used is what chunks have taken, granted is what devices may take", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const { front } = await attach(t, device);
  const { id } = await takeSnapshot(t, [device], { stores: ["memory:"] });
  const fresh = await storesOf(t, id);
  assert.is(fresh.used_bytes, 0);
  assert.ok(fresh.granted_bytes > 0);
  await writeDevice(t, front, random.bytes(MIB));
  const { used_bytes: used, stores } = await storesOf(t, id);
  assert.is(used, MIB);
  assert.is(stores[0].used_bytes, MIB);
});

test("growth in portions, never beyond the limit", async (t) => {
  const device = await loopDisk(t, 72 * MIB);
  const { id } = await overwriteAll(t, device, 72 * MIB, [storeFolder(t)], 80 * MIB);
  const {
    used_bytes: used,
    granted_bytes: granted,
    allocated_bytes: allocated,
    limit_bytes: limit,
  } = await storesOf(t, id);
  assert.is(used, 72 * MIB);
  assert.ok(granted >= used && allocated >= granted && allocated <= limit);
});

async function smallTmpfs(t, sizeMib) {
  const folder = join(t.folder, t.name("tmpfs-"));
  mkdirSync(folder);
  t.defer(() => rmdirSync(folder));
  await run(["mount", "-t", "tmpfs", "-o", `size=${sizeMib}m`, "none", folder]);
  t.defer(() => run(["umount", folder]));
  return folder;
}

test("a tmpfs smaller than the limit holds what it can", async (t) => {
  const device = await loopDisk(t, 16 * MIB);
  await overwriteAll(t, device, 16 * MIB, [await smallTmpfs(t, 40)], 2048 * MIB);
});

test("a tmpfs that is full breaks the image alone", async (t) => {
  t.expectKernelMessages(IMAGE_GONE);
  const device = await loopDisk(t, 48 * MIB);
  const { front } = await attach(t, device);
  const stores = [await smallTmpfs(t, 40)];
  const { id } = await takeSnapshot(t, [device], { stores, limitBytes: 2048 * MIB });
  const after = random.bytes(48 * MIB);
  await writeDevice(t, front, after);
  assert.ok(after.equals(await readDevice(t, front, 48 * MIB)));
  const { error_code: error, lost_bytes: lost } = await memberStatus(t, id, device);
  assert.is(error, -28);
  assert.ok(lost > 0 && lost < 24 * MIB, `${lost} bytes were lost`);
});

/** Fails unless the store is refused, by this name and for this reason. */
async function refuses(t, device, store, code, reason) {
  const options = { devices: [device], stores: [store], limitBytes: 16 * MIB };
  const { snapshots } = await t.client.status();
  const error = await t.client.snapshotCreate(options).catch((failure) => failure);
  assert.is(error.code, code, String(error.message ?? error));
  assert.match(error.message, reason);
  assert.is((await t.client.status()).snapshots.length, snapshots.length);
}

test("the bytes of a tracked device are no store, whatever they are called", async (t) => {
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

test("the bytes of a tracked file are no store, nor is what lies on them", async (t) => {
  const file = imageFile(t, 16 * MIB);
  const device = await loopDisk(t, 16 * MIB, { file });
  await makeFileSystem("ext4", device);
  await attach(t, file);
  await refuses(t, file, device, "STORE_ON_DEVICE", /lies on \S+disk-/);
  const { path, unmount } = await mount(t, device, ["ro", "noload"]);
  await refuses(t, file, path, "STORE_ON_DEVICE", /lies on \S+disk-/);
  await unmount();
});

test("what a loop device shows to others is no store, nor a device to attach", async (t) => {
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

test("old data of a snapshot is no store of another one, nor a device to attach", async (t) => {
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

test("an ext4 whose journal is on a front is no place for a store", async (t) => {
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

test("a reflinked copy of an original is a file of its own", async (t) => {
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

test("swap is neither a store nor an original", async (t) => {
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

/** Undefined, and said so, on a kernel without zones. */
async function zonedDisk(t) {
  try {
    return await nullDisk(t, { sizeMib: 16, zoneMib: 4 });
  } catch (error) {
    if (error.code !== "EINVAL" || process.env.CI) throw error;
    console.log("this kernel knows no zoned disks: nothing is tested");
    return undefined;
  }
}

test("a zoned disk is refused by name, as an original and as a store", async (t) => {
  const disk = await zonedDisk(t);
  if (disk === undefined) return;
  const error = await t.client.attach(disk).catch((failure) => failure);
  assert.is(error.code, "DEVICE_ZONED", String(error.message ?? error));
  const device = await loopDisk(t, MIB);
  await attach(t, device);
  await refuses(t, device, disk, "STORE_INVALID", "is a zoned disk");
});

test.run();
