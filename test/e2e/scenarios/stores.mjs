/** Every kind of store keeps the old data, grows as it may, and leaves what it should. */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { alignedBuffer, DeviceFile, readDevice, writeDevice } from "../lib/device-file.mjs";
import { imageFile, loopDisk, ramDisks } from "../lib/disks.mjs";
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

const test = scenario(import.meta.url, { sampledIn: 2 });
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

test("an existing regular file grows, and stays", async (t) => {
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

/** @param cut what another program does to the store's file in the middle */
async function cutOff(t, cut) {
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
  cut(file);
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
}

test("a truncated store file: its data is lost, and never reads as zeros", (t) =>
  cutOff(t, (file) => truncateSync(file)));

test("the same, if the file is extended again before the check", (t) =>
  cutOff(t, (file) => {
    const { size } = statSync(file);
    truncateSync(file);
    truncateSync(file, size);
  }));

test("a folder gets one private file, which is removed with the snapshot", async (t) => {
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

test("a block device and then memory are filled", async (t) => {
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

/** Each size of the store's blocks, each order of the members and each way to add them meet once. */
const BLOCK_SIZES = [
  { storeBytes: 512, memberBytes: [4096, 512], isAdded: true },
  { storeBytes: 512, memberBytes: [512, 4096], isAdded: false },
  { storeBytes: 4096, memberBytes: [4096, 512], isAdded: false },
  { storeBytes: 4096, memberBytes: [512, 4096], isAdded: true },
];

for (const { storeBytes, memberBytes, isAdded } of BLOCK_SIZES) {
  const how = isAdded ? "one added later" : "both at once";
  const name = `logical blocks: members of ${memberBytes.join(" and ")}, store of ${storeBytes}, ${how}`;
  test(name, async (t) => {
    const store = await loopDisk(t, 16 * MIB, { sectorBytes: storeBytes });
    const devices = [
      await loopDisk(t, 4 * MIB, { sectorBytes: memberBytes[0] }),
      await loopDisk(t, 4 * MIB, { sectorBytes: memberBytes[1] }),
    ];
    const fronts = [await attach(t, devices[0]), await attach(t, devices[1])];
    const before = [];
    for (const { front } of fronts) {
      before.push(random.bytes(4 * MIB));
      await writeDevice(t, front, before.at(-1));
    }
    const first = isAdded ? devices.slice(0, 1) : devices;
    const { id } = await createSnapshot(t, first, { stores: [store] });
    if (isAdded) await t.client.snapshotAdd(id, devices[1]);
    const { images } = await t.client.snapshotTake(id);
    for (const [index, { front, device }] of fronts.entries()) {
      await writeDevice(t, front, random.bytes(4 * MIB));
      const { image } = images.find((one) => one.device === device);
      if (memberBytes[index] === 512) await useSectors(t, image, before[index]);
      else assert.ok(before[index].equals(await readDevice(t, image, 4 * MIB)));
      assert.is((await memberStatus(t, id, device)).lost_bytes, 0);
    }
  });
}

test("read-only images refuse writes in the kernel, and stay right", async (t) => {
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

test("used counts slots of chunks, granted those that devices may use", async (t) => {
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

test("a create reports step by step how much of its store is allocated", async (t) => {
  const store = storeFolder(t);
  const told = [];
  const parameters = { stores: [store], limitBytes: 24 * MIB };
  const { id } = await t.client.snapshotCreate(parameters, {
    onProgress: (progress) => told.push(progress),
  });
  await t.client.snapshotDestroy(id);
  const target = told[0].target_bytes;
  assert.ok(target > 0 && target <= 24 * MIB);
  const allocated = told.map(({ allocated_bytes: bytes }) => bytes);
  const steps = allocated.slice(1).map((bytes, step) => bytes - allocated[step]);
  assert.equal([allocated[0], allocated.at(-1)], [0, target]);
  assert.ok(steps.every((bytes) => bytes > 0 && bytes <= 16 * MIB));
  assert.ok(told.every((one) => one.store === store && one.target_bytes === target));
});

test("a store grows in portions, never beyond the limit", async (t) => {
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

test("a full tmpfs breaks only the image", async (t) => {
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

test.run();
