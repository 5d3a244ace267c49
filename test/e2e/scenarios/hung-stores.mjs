/**
 * Disks that hang instead of failing: a suspended or slow dm device as store, as the disk of persistent
 * state, as the original. Nobody who writes waits longer than the bound, once, and everything can be ended.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, DeviceFile, readDevice, writeDevice } from "../lib/device-file.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { seededRandom } from "../lib/random.mjs";
import { refused } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, pendingEvents, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false });
const BOUND_MS = 2_000;
const SIZE_BYTES = 8 * MIB;
const STORE_BYTES = 160 * MIB;
const CHUNK_BYTES = 256 * 1024;
const WRITE_BYTES = 4096;
const WRITES = 24;
const EBUSY = 16;
const ETIMEDOUT = 110;
const LIMIT = { timeLimitMs: 300_000 };
const DISK_ERRORS = [/Buffer I\/O error on dev(ice)? ublkb\d+/, /I\/O error, dev ublkb\d+/];

/** Disks that can be made to hang, the first of them an original with content. */
async function disks(t, count) {
  t.expectKernelMessages(DISK_ERRORS);
  const below = await ramDisks(t, count, STORE_BYTES);
  const found = [];
  for (const [index, path] of below.entries()) {
    const disk = await MappedDisk.create(t, path, index === 0 ? SIZE_BYTES : STORE_BYTES);
    found.push(disk);
  }
  const content = seededRandom(import.meta.url).bytes(SIZE_BYTES);
  await writeDevice(t, found[0].path, content);
  return { all: found, content };
}

async function daemon(t, all, args = [], options = {}) {
  const words = ["--io-timeout", String(BOUND_MS), ...args];
  const started = await Daemon.startFor(t, { args: words, ...options });
  // Whatever becomes of the test, nobody waits for a disk.
  t.defer(() => Promise.all(all.map((disk) => disk.resume())));
  return started;
}

/** Writes to the beginning of each chunk in turn, from `first` on. */
async function writeChunks(t, front, first, count, fill) {
  const file = await DeviceFile.open(t, front);
  const data = alignedBuffer(WRITE_BYTES).fill(fill);
  for (let chunk = first; chunk < first + count; chunk++)
    await file.write(data, chunk * CHUNK_BYTES);
  await file.close();
}

/** The first bytes of a chunk; undefined where they cannot be read. */
async function readChunk(t, path, chunk) {
  const file = await DeviceFile.open(t, path, { readOnly: true });
  const data = alignedBuffer(WRITE_BYTES);
  try {
    await file.readInto(data, chunk * CHUNK_BYTES);
    return Buffer.from(data);
  } catch {
    return undefined;
  } finally {
    await file.close();
  }
}

function chunkOf(content, chunk) {
  return content.subarray(chunk * CHUNK_BYTES, chunk * CHUNK_BYTES + WRITE_BYTES);
}

async function storeHangs(t, id) {
  const { snapshots } = await t.client.status();
  return snapshots.find((snapshot) => snapshot.id === id).stores[0].hung;
}

function namesOf(events) {
  return events.map(({ event }) => event);
}

test(
  "a store that hangs: one write waits, the others do not, and it is used again when it answers",
  async (t) => {
    const { all, content } = await disks(t, 2);
    const [original, store] = all;
    await daemon(t, all);
    const { front, detach } = await attach(t, original.path);
    const options = { stores: [store.path], limitBytes: 64 * MIB };
    const snapshot = await takeSnapshot(t, [original.path], options);
    await writeChunks(t, front, 0, 2, 1);
    await store.hang();
    await writeChunks(t, front, 2, WRITES, 2);
    const status = await memberStatus(t, snapshot.id, original.path);
    assert.is(status.late_io, 1);
    assert.is(status.lost_bytes, WRITES * WRITE_BYTES);
    assert.is(await storeHangs(t, snapshot.id), true);
    const events = await pendingEvents(t, snapshot.id);
    assert.equal(namesOf(events).sort(), ["corrupted", "store_hung"]);
    const { store: path } = events.find(({ event }) => event === "store_hung");
    assert.is(path, store.path);
    assert.is(events.find(({ event }) => event === "corrupted").errno, ETIMEDOUT);
    // What is in the store cannot be read now; what is not there can.
    const [image] = snapshot.images;
    assert.is(await readChunk(t, image, 0), undefined);
    assert.equal(await readChunk(t, image, 2 + WRITES), chunkOf(content, 2 + WRITES));

    await store.resume();
    await until("the store answers", async () => !(await storeHangs(t, snapshot.id)));
    assert.equal(namesOf(await pendingEvents(t, snapshot.id)), ["store_answered"]);
    await writeChunks(t, front, 2 + WRITES, 2, 3);
    for (const chunk of [0, 1, 2 + WRITES, 3 + WRITES]) {
      assert.equal(await readChunk(t, image, chunk), chunkOf(content, chunk));
    }
    for (const chunk of [2, 1 + WRITES]) assert.is(await readChunk(t, image, chunk), undefined);
    assert.is((await memberStatus(t, snapshot.id, original.path)).late_io, 1);
    await snapshot.destroy();
    await detach();
  },
  LIMIT,
);

test(
  "a store that hangs: the snapshot is destroyed, the store stays taken until it has answered",
  async (t) => {
    const { all, content } = await disks(t, 2);
    const [original, store] = all;
    const { client } = await daemon(t, all);
    const { front, detach } = await attach(t, original.path);
    const options = { stores: [store.path], limitBytes: 64 * MIB };
    const snapshot = await takeSnapshot(t, [original.path], options);
    await store.hang();
    await writeChunks(t, front, 0, 2, 1);
    await snapshot.destroy();
    assert.equal((await client.status()).snapshots, []);
    await writeChunks(t, front, 0, 4, 2);
    const again = { devices: [original.path], ...options };
    await refused(t, "STORE_BUSY", EBUSY, () => client.snapshotCreate(again));
    await store.resume();
    const { id } = await until("the store is free", () =>
      client.snapshotCreate(again).catch(() => undefined),
    );
    const { images } = await client.snapshotTake(id);
    await writeChunks(t, front, 0, 6, 3);
    const expected = Buffer.from(content);
    for (let chunk = 0; chunk < 4; chunk++) chunkOf(expected, chunk).fill(2);
    assert.ok((await readDevice(t, images[0].image, SIZE_BYTES)).equals(expected));
    await client.snapshotDestroy(id);
    await detach();
  },
  LIMIT,
);

test(
  "a store that hangs under fail-writes: the write fails, nothing is lost",
  async (t) => {
    const { all, content } = await disks(t, 2);
    const [original, store] = all;
    const { client } = await daemon(t, all);
    const { front, detach } = await attach(t, original.path);
    const { id } = await client.snapshotCreate({
      devices: [original.path],
      stores: [store.path],
      limitBytes: 64 * MIB,
      onOverflow: { policy: "fail-writes" },
    });
    const { images } = await client.snapshotTake(id);
    await store.hang();
    for (const chunk of [0, 1, 2]) {
      const failed = await writeChunks(t, front, chunk, 1, 1).catch((error) => error);
      assert.is(failed?.code, "EIO");
    }
    const status = await memberStatus(t, id, original.path);
    assert.is(status.late_io, 1);
    assert.is(status.refused_writes, 3);
    await store.resume();
    await until("the store answers", async () => !(await storeHangs(t, id)));
    await writeChunks(t, front, 0, 3, 1);
    assert.ok((await readDevice(t, images[0].image, SIZE_BYTES)).equals(content));
    await client.snapshotDestroy(id);
    await detach();
  },
  LIMIT,
);

test(
  "a store that answers after its bound: its late answers change nothing",
  async (t) => {
    const { all, content } = await disks(t, 2);
    const [original, store] = all;
    await daemon(t, all);
    const { front, detach } = await attach(t, original.path);
    const options = { stores: [store.path], limitBytes: 64 * MIB };
    const snapshot = await takeSnapshot(t, [original.path], options);
    await writeChunks(t, front, 0, 2, 1);
    await store.delayWrites(2 * BOUND_MS);
    await writeChunks(t, front, 2, WRITES, 2);
    const { late_io: late, lost_bytes: lost } = await memberStatus(t, snapshot.id, original.path);
    assert.is(late, 1);
    await store.heal();
    await until("the store answers", async () => !(await storeHangs(t, snapshot.id)));
    await writeChunks(t, front, 2 + WRITES, 2, 3);
    const [image] = snapshot.images;
    for (let chunk = 0; chunk < SIZE_BYTES / CHUNK_BYTES; chunk++) {
      const isLost = chunk >= 2 && chunk < 2 + WRITES;
      assert.equal(await readChunk(t, image, chunk), isLost ? undefined : chunkOf(content, chunk));
    }
    assert.is((await memberStatus(t, snapshot.id, original.path)).lost_bytes, lost);
    await snapshot.destroy();
    await detach();
  },
  LIMIT,
);

/** A file system on a disk that can hang, for the state of persistent trackers. */
async function medium(t, disk) {
  await makeFileSystem("ext4", disk.path);
  const { path } = await mount(t, disk.path);
  mkdirSync(join(path, "state"));
  return join(path, "state");
}

function trackerOf({ trackers }, device) {
  return trackers.find((tracker) => tracker.device === device);
}

test(
  "the disk of persistent state hangs: writers go on without it, and everything ends",
  async (t) => {
    const { all } = await disks(t, 3);
    const [original, store, state] = all;
    const directory = await medium(t, state);
    const running = await daemon(t, all, ["--persistent-dir", directory]);
    const { client } = running;
    const { front } = await client.attach(original.path, { persistent: true });
    t.defer(() => client.detach(original.path).catch(() => undefined));
    const { id } = await client.snapshotCreate({
      devices: [original.path],
      stores: [store.path],
      limitBytes: 64 * MIB,
      persistent: true,
    });
    const { images } = await client.snapshotTake(id);
    const frozen = await readDevice(t, front, SIZE_BYTES);
    await writeChunks(t, front, 0, 2, 1);
    await state.hang();
    await writeChunks(t, front, 2, WRITES, 2);
    const status = await client.status();
    const { persistence } = trackerOf(status, original.path);
    assert.is(persistence.state, "failed");
    assert.match(persistence.why, /ETIMEDOUT/);
    assert.is(status.snapshots[0].persistent, false);
    // The store is well: nothing is lost.
    assert.is((await memberStatus(t, id, original.path)).lost_bytes, 0);
    assert.ok((await readDevice(t, images[0].image, SIZE_BYTES)).equals(frozen));
    await client.snapshotDestroy(id);
    await client.detach(original.path);
    await state.resume();
    await running.stop();
  },
  LIMIT,
);

test(
  "the store of a persistent snapshot hangs: writers go on, and destroy ends",
  async (t) => {
    const { all, content } = await disks(t, 3);
    const [original, store, state] = all;
    const directory = await medium(t, state);
    const running = await daemon(t, all, ["--persistent-dir", directory]);
    const { client } = running;
    const { front } = await client.attach(original.path, { persistent: true });
    t.defer(() => client.detach(original.path).catch(() => undefined));
    const options = { stores: [store.path], limitBytes: 64 * MIB, persistent: true };
    const { id } = await client.snapshotCreate({ devices: [original.path], ...options });
    const { images } = await client.snapshotTake(id);
    await writeChunks(t, front, 0, 2, 1);
    await store.hang();
    await writeChunks(t, front, 2, WRITES, 2);
    const { late_io: late, lost_bytes: lost } = await memberStatus(t, id, original.path);
    assert.is(late, 1);
    assert.is(lost, WRITES * WRITE_BYTES);
    assert.equal(await readChunk(t, images[0].image, 30), chunkOf(content, 30));
    await client.snapshotDestroy(id);
    await client.detach(original.path);
    await store.resume();
    await running.stop();
  },
  LIMIT,
);

test(
  "an original that hangs: a snapshot of it can be destroyed",
  async (t) => {
    const { all, content } = await disks(t, 2);
    const [original, store] = all;
    const { client } = await daemon(t, all);
    const { front, detach } = await attach(t, original.path);
    const options = { stores: [store.path], limitBytes: 64 * MIB };
    const snapshot = await takeSnapshot(t, [original.path], options);
    await original.hang();
    const writing = writeChunks(t, front, 0, 1, 1);
    const reading = readChunk(t, snapshot.images[0], 1);
    await until("the write is on its way", async () => {
      const { chunks_used: used } = await memberStatus(t, snapshot.id, original.path);
      return used === 1;
    });
    await snapshot.destroy();
    assert.is(await reading, undefined);
    assert.equal((await client.status()).snapshots, []);
    await original.resume();
    await writing;
    chunkOf(content, 0).fill(1);
    assert.ok((await readDevice(t, front, SIZE_BYTES)).equals(content));
    await detach();
  },
  LIMIT,
);

test(
  "killed while a store hangs: the next daemon serves when the store has answered",
  async (t) => {
    const { all } = await disks(t, 2);
    const [original, store] = all;
    const first = await daemon(t, all);
    const { front } = await first.client.attach(original.path);
    const { id } = await first.client.snapshotCreate({
      devices: [original.path],
      stores: [store.path],
      limitBytes: 64 * MIB,
    });
    await first.client.snapshotTake(id);
    await store.hang();
    await writeChunks(t, front, 0, 1, 1);
    first.kill("SIGKILL");
    await store.resume();
    await first.ended();
    const next = await daemon(t, all, [], { name: "next" });
    await writeChunks(t, front, 1, 2, 2);
    assert.is((await memberStatus(t, id, original.path)).lost_bytes, WRITE_BYTES);
    await next.client.snapshotDestroy(id);
    await next.client.detach(original.path);
    await next.stop();
  },
  LIMIT,
);

test(
  "stopped while a store hangs: the daemon ends, and the store stays taken",
  async (t) => {
    const { all } = await disks(t, 2);
    const [original, store] = all;
    const first = await daemon(t, all);
    const { front } = await first.client.attach(original.path);
    const options = { devices: [original.path], stores: [store.path], limitBytes: 64 * MIB };
    const { id } = await first.client.snapshotCreate(options);
    await first.client.snapshotTake(id);
    await store.hang();
    await writeChunks(t, front, 0, 1, 1);
    await first.client.snapshotDestroy(id);
    await first.client.detach(original.path);
    await first.stop();
    const next = await daemon(t, all, [], { name: "next" });
    const taken = await next.client.snapshotCreate({ ...options, devices: [] }).catch((e) => e);
    assert.is(taken.code, "STORE_BUSY");
    await store.resume();
    const again = await until("the store is free", () =>
      next.client.snapshotCreate(options).catch(() => undefined),
    );
    await next.client.snapshotDestroy(again.id);
    await next.stop();
  },
  LIMIT,
);

test.run();
