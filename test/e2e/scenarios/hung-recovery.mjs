/**
 * A daemon that comes back while a store, or the directory for persistent state, does not answer. They lie
 * on a file system whose disk is suspended: to open one of them waits for as long as that lasts, and cannot
 * be interrupted.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, assertContent, DeviceFile, readDevice } from "../lib/device-file.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const SIZE_BYTES = 16 * MIB;
const BLOCK_BYTES = 4096;
const STATE = "/run/blksnap/state";
const LIMIT = { timeLimitMs: 3_600_000 };
const TRIES = 4;
const GIVEN_UP = /"msg":"snapshot is lost: the stores? [^"]*answer/;

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
  // So that nothing of it is in memory. The kernel releases the dead daemon's files in its own time.
  await until("the stores are unused", () =>
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
function startNext(t, args = []) {
  const daemon = new Daemon({ name: "next", args });
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
  await until("it serves", () =>
    daemon.client.status().then(
      () => true,
      () => false,
    ),
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
    assert.match(daemon.log(), GIVEN_UP);
    assert.equal((await daemon.client.status()).snapshots, []);
    await assertContent(t, fronts[0], model);
    await disk.resume();
    await held.close();
    await setting.other.close();
    await endAll(t, daemon, setting);
  },
  LIMIT,
);

/** Answers false where this machine was so slow that the daemon has given the store up before it answered. */
async function answersLate(t) {
  const setting = await killedWithoutStore(t);
  const { held, write, fronts, model, disk, image, frozen, id } = setting;
  const daemon = startNext(t);
  await assertFrontsServe(setting);
  let isWritten = false;
  const writing = write(held, 9, 3).then(() => {
    isWritten = true;
  });
  await assertFrontsServe(setting);
  const isWrittenBefore = isWritten;
  await disk.resume();
  await writing;
  await serves(daemon);
  const isInTime = !GIVEN_UP.test(daemon.log());
  const { snapshots } = await daemon.client.status();
  if (isInTime) {
    assert.not.ok(isWrittenBefore, "a write without a copy of its old data");
    assert.equal(
      snapshots.map((snapshot) => snapshot.id),
      [id],
    );
    assert.is(snapshots[0].devices[0].error_code, 0);
    await assertContent(t, image, frozen);
    await daemon.client.snapshotDestroy(id);
  }
  await assertContent(t, fronts[0], model);
  await held.close();
  await setting.other.close();
  await endAll(t, daemon, setting);
  return isInTime;
}

/** Again where the machine was so slow that the daemon's patience had ended too early. */
async function inTime(tryOnce) {
  for (let tries = 1; !(await tryOnce()); tries++) {
    assert.ok(tries < TRIES, "what hangs was given up too early each time");
    note("the machine was slower than the daemon's patience; retrying");
  }
}

test(
  "a store that answers late keeps its snapshot: what needs it waits, and nothing else does",
  (t) => inTime(() => answersLate(t)),
  LIMIT,
);

/** The file system of a disk that can hang, and how to forget what is in memory of it. */
async function hangingFolder(t) {
  const disk = await MappedDisk.create(t, await loopDisk(t, 96 * MIB), 96 * MIB);
  await makeFileSystem("ext4", disk.path);
  const { path } = await mount(t, disk.path);
  const mountAnew = async () => {
    await until("it is unused", () =>
      run(["umount", path]).then(
        () => true,
        () => false,
      ),
    );
    await run(["mount", disk.path, path]);
  };
  return { disk, path: join(path, "state"), mountAnew };
}

/** Writes a block of the front, and reads it again. */
async function assertServed(file, byte) {
  const [written, read] = [alignedBuffer(BLOCK_BYTES), alignedBuffer(BLOCK_BYTES)];
  written.fill(byte);
  await file.write(written, 0);
  await file.readInto(read, 0);
  assert.ok(read.equals(written));
}

/** Answers whether the front without persistent state was served before the other one's was given up. */
async function servesOthersAtOnce(t) {
  const { disk, path, mountAnew } = await hangingFolder(t);
  const args = ["--persistent-dir", path];
  const [plain, kept] = [await loopDisk(t, SIZE_BYTES), await loopDisk(t, SIZE_BYTES)];
  const first = await Daemon.startFor(t, { args });
  const files = [];
  for (const [device, persistent] of [
    [plain, false],
    [kept, true],
  ]) {
    const { front } = await first.client.attach(device, { persistent });
    files.push(await DeviceFile.open(t, front));
  }
  first.kill("SIGKILL");
  await first.ended();
  await mountAnew();
  await disk.hang();
  t.defer(() => disk.resume());
  const daemon = startNext(t, args);
  await assertServed(files[0], 1);
  const isAtOnce = !/the tracker is not persistent/.test(daemon.log());
  await assertServed(files[1], 2);
  await serves(daemon);
  const { trackers } = await daemon.client.status();
  assert.is(trackers.length, 2);
  await disk.resume();
  for (const file of files) await file.close();
  await endAll(t, daemon, { devices: [plain, kept] });
  return isAtOnce;
}

test(
  "persistent state that does not answer: other fronts serve at once, its own after a while",
  (t) => inTime(() => servesOthersAtOnce(t)),
  LIMIT,
);

test(
  "after a reboot, persistent state that does not answer keeps the daemon for a while only",
  async (t) => {
    const { disk, path, mountAnew } = await hangingFolder(t);
    const args = ["--persistent-dir", path];
    const device = await loopDisk(t, SIZE_BYTES);
    const first = await Daemon.startFor(t, { args });
    await first.client.attach(device, { persistent: true });
    await first.stop();
    rmSync(STATE, { recursive: true, force: true });
    await mountAnew();
    await disk.hang();
    t.defer(() => disk.resume());
    const daemon = startNext(t, args);
    await serves(daemon);
    assert.match(daemon.log(), "persistent trackers are not attached again");
    assert.match(daemon.log(), `${path}: the medium does not answer`);
    const error = await daemon.client.attach(device).catch((reason) => reason);
    assert.is(error.code, "PERSISTENT_STATE_UNUSABLE");
    await disk.resume();
    const attached = await daemon.client.attach(device);
    assert.ok(attached.persistent);
    await endAll(t, daemon, { devices: [device] });
  },
  LIMIT,
);

test.run();
