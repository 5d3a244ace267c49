/**
 * A daemon that comes back while a store does not answer. The stores lie on a file system whose disk is
 * suspended: to open one of them waits for as long as that lasts, and cannot be interrupted.
 */
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, assertContent, DeviceFile, readDevice } from "../lib/device-file.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false });
const SIZE_BYTES = 16 * MIB;
const BLOCK_BYTES = 4096;
const LIMIT = { timeLimitMs: 600_000 };

/** Fronts of two devices, one of them in a snapshot whose daemon is dead and whose store is not there. */
async function killedWithoutStore(t) {
  const below = await loopDisk(t, 96 * MIB);
  const disk = await MappedDisk.create(t, below, 96 * MIB);
  await makeFileSystem("ext4", disk.path);
  const { path: stores } = await mount(t, disk.path);
  await run(["mkdir", join(stores, "folder")]);
  const devices = [await loopDisk(t, SIZE_BYTES), await loopDisk(t, SIZE_BYTES)];
  const first = await Daemon.startFor(t);
  const fronts = [];
  for (const device of devices) fronts.push((await first.client.attach(device)).front);
  const { id } = await first.client.snapshotCreate({
    devices: [devices[0]],
    stores: [join(stores, "folder")],
    limitBytes: 64 * MIB,
  });
  const { images } = await first.client.snapshotTake(id);
  const held = await DeviceFile.open(t, fronts[0]);
  const other = await DeviceFile.open(t, fronts[1]);
  const frozen = await readDevice(t, fronts[0], SIZE_BYTES);
  const model = Buffer.from(frozen);
  const write = async (file, at, byte) => {
    const buffer = alignedBuffer(BLOCK_BYTES);
    buffer.fill(byte);
    await file.write(buffer, at * BLOCK_BYTES);
    if (file === held) buffer.copy(model, at * BLOCK_BYTES);
  };
  await write(held, 0, 1);
  first.kill("SIGKILL");
  await first.ended();
  // So that nothing of it is in memory. The kernel lets go of the dead daemon's files in its own time.
  await until("nobody uses the stores", () =>
    run(["umount", stores]).then(
      () => true,
      () => false,
    ),
  );
  await run(["mount", disk.path, stores]);
  await disk.hang();
  t.defer(() => disk.resume());
  return { disk, devices, fronts, id, image: images[0].image, frozen, model, held, other, write };
}

/** A daemon that has not said yet that it serves. */
function startNext(t) {
  const daemon = new Daemon({ name: "next" });
  t.daemon = daemon;
  t.defer(() => daemon.destroy());
  return daemon;
}

/** All that needs nothing of the store. */
async function assertFrontsServe({ held, other, write }) {
  await write(other, 3, 7);
  await held.readInto(alignedBuffer(BLOCK_BYTES), 5 * BLOCK_BYTES);
  // Its old data is saved already.
  await write(held, 0, 2);
}

async function serves(daemon) {
  await until(
    "it serves",
    () =>
      daemon.client.status().then(
        () => true,
        () => false,
      ),
    120_000,
  );
}

async function endAll(_t, daemon, { devices }) {
  for (const device of devices) await daemon.client.detach(device);
  await daemon.stop();
}

test(
  "fronts do not wait for a store that never answers, and its snapshot is lost after a while",
  async (t) => {
    const setting = await killedWithoutStore(t);
    const { held, write, fronts, model, disk } = setting;
    const daemon = startNext(t);
    await assertFrontsServe(setting);
    // Only this one needs the store, and only for as long as the snapshot is not given up.
    await write(held, 9, 3);
    await serves(daemon);
    assert.match(daemon.log(), /"msg":"snapshot is lost"/);
    assert.equal((await daemon.client.status()).snapshots, []);
    await assertContent(t, fronts[0], model);
    await disk.resume();
    await held.close();
    await setting.other.close();
    await endAll(t, daemon, setting);
  },
  LIMIT,
);

test(
  "a store that answers late keeps its snapshot: what needs it waits, and nothing else does",
  async (t) => {
    const setting = await killedWithoutStore(t);
    const { held, write, fronts, model, disk, image, frozen, id } = setting;
    const daemon = startNext(t);
    await assertFrontsServe(setting);
    let isWritten = false;
    const writing = write(held, 9, 3).then(() => {
      isWritten = true;
    });
    await assertFrontsServe(setting);
    assert.not.ok(isWritten, "a write without a copy of its old data");
    await disk.resume();
    await writing;
    await serves(daemon);
    const { snapshots } = await daemon.client.status();
    assert.equal(
      snapshots.map((snapshot) => snapshot.id),
      [id],
    );
    assert.is(snapshots[0].devices[0].error_code, 0);
    await assertContent(t, image, frozen);
    await assertContent(t, fronts[0], model);
    await daemon.client.snapshotDestroy(id);
    await held.close();
    await setting.other.close();
    await endAll(t, daemon, setting);
  },
  LIMIT,
);

test.run();
