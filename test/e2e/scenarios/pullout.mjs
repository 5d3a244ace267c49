/**
 * blksnap's 5000-pullout: an original that is pulled out while it is tracked. Nothing can give its data
 * back, but its users get errors instead of hanging, and everything can be taken down.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { alignedBuffer, DeviceFile, readDevice, writeDevice } from "../lib/device-file.mjs";
import { imageFile, nullDisk, scsiDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const random = seededRandom("pullout");
const SIZE_MIB = 8;
const GONE = [
  /I\/O error,? (on )?(dev|device) (ublkb\d+|sd[a-z]+|e2e\d+)/,
  /EXT4-fs (error|warning) \(device ublkb\d+\)/,
  /EXT4-fs \(ublkb\d+\)/,
  /Aborting journal|JBD2/,
];

const DISKS = {
  null_blk: async (t) => {
    const path = await nullDisk(t, { sizeMib: SIZE_MIB });
    const power = `/sys/kernel/config/nullb/${path.slice("/dev/".length)}/power`;
    return { path, pullOut: () => writeFileSync(power, "0") };
  },
  "a SCSI disk": (t) => scsiDisk(t, SIZE_MIB),
};

async function pullOut({ path, pullOut: pull }) {
  pull();
  await until(`${path} is gone`, () => !existsSync(path));
}

/** The driver continues with other devices as if nothing had happened. */
async function assertDriverServes(t) {
  const device = imageFile(t, MIB);
  const { front, detach } = await attach(t, device);
  const snapshot = await takeSnapshot(t, [device]);
  await run(["cmp", front, snapshot.images[0]]);
  await snapshot.destroy();
  await detach();
}

async function failsWithError(file, buffer, offset) {
  const error = await file.readInto(buffer, offset).catch((reason) => reason);
  assert.match(error?.code ?? "no error", /^(EIO|ENODEV|ENXIO)$/);
}

for (const [name, makeDisk] of Object.entries(DISKS)) {
  test(`5000-pullout, ${name}: after its snapshot was destroyed`, async (t) => {
    t.expectKernelMessages(GONE);
    const disk = await makeDisk(t);
    const { front, detach } = await attach(t, disk.path);
    const snapshot = await takeSnapshot(t, [disk.path]);
    await writeDevice(t, front, random.bytes(MIB));
    assert.equal((await t.client.snapshotCollect())[0].devices, [disk.path]);
    await snapshot.destroy();
    assert.equal(await t.client.snapshotCollect(), []);
    await pullOut(disk);
    const file = await DeviceFile.open(t, front, { readOnly: true });
    await failsWithError(file, alignedBuffer(4096), 0);
    await file.close();
    assert.is((await t.client.status()).trackers[0].original_capacity_bytes, 0);
    const another = await createSnapshot(t, [disk.path]);
    const refusal = await t.client.snapshotTake(another.id).catch((error) => error);
    assert.is(refusal.code, "DEVICE_CAPACITY_CHANGED", String(refusal));
    await another.destroy();
    await assertDriverServes(t);
    await detach();
    assert.equal((await t.client.status()).trackers, []);
  });
}

test("5000-pullout, under a snapshot: what was saved can be read, and all ends", async (t) => {
  t.expectKernelMessages(GONE);
  const disk = await DISKS.null_blk(t);
  const { front, detach } = await attach(t, disk.path);
  const before = random.bytes(SIZE_MIB * MIB);
  await writeDevice(t, front, before);
  const snapshot = await takeSnapshot(t, [disk.path]);
  await writeDevice(t, front, random.bytes(MIB));
  await pullOut(disk);
  const [image] = snapshot.images;
  assert.ok((await readDevice(t, image, MIB)).equals(before.subarray(0, MIB)));
  const file = await DeviceFile.open(t, image, { readOnly: true });
  await failsWithError(file, alignedBuffer(4096), 2 * MIB);
  await file.close();
  await snapshot.destroy();
  await detach();
  await assertDriverServes(t);
});

test("5000-pullout, mounted: the file system fails, and can be unmounted and detached", async (t) => {
  t.expectKernelMessages(GONE);
  const disk = await DISKS.null_blk(t);
  const { front, detach } = await attach(t, disk.path);
  await makeFileSystem("ext4", front);
  const { path, unmount } = await mount(t, front);
  writeFileSync(join(path, "file"), random.bytes(MIB));
  await pullOut(disk);
  await run(["sync", "-f", path], { status: "any" });
  await unmount();
  await detach();
  await assertDriverServes(t);
});

test.run();
