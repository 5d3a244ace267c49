/**
 * Stores and originals that hang instead of failing: suspended or slow dm devices. No writer waits longer
 * than the bound, once, and every snapshot can be ended. What it means for a daemon's end: hung-daemons.mjs.
 */
import * as assert from "uvu/assert";
import { readDevice } from "../lib/device-file.mjs";
import {
  BOUND_ARGS,
  CHUNK_BYTES,
  chunkOf,
  hangingDisks,
  readChunk,
  resumeAfter,
  SIZE_BYTES,
  WRITE_BYTES,
  writeChunks,
} from "../lib/hanging-disks.mjs";
import { requestsInFlight } from "../lib/in-flight.mjs";
import { refused } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, pendingEvents, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: { args: BOUND_ARGS }, sampledIn: 2 });
const WRITES = 24;
const EBUSY = 16;
const ETIMEDOUT = 110;
const LIMIT = { timeLimitMs: 600_000 };

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
    const { all, content } = await hangingDisks(t, 2);
    const [original, store] = all;
    resumeAfter(t, all);
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
  "a store that hangs: the snapshot is destroyed, the store stays in use until it has answered",
  async (t) => {
    const { all, content } = await hangingDisks(t, 2);
    const [original, store] = all;
    const { client } = t;
    resumeAfter(t, all);
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
    const { all, content } = await hangingDisks(t, 2);
    const [original, store] = all;
    const { client } = t;
    resumeAfter(t, all);
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
    const { all, content } = await hangingDisks(t, 2);
    const [original, store] = all;
    resumeAfter(t, all);
    const { front, detach } = await attach(t, original.path);
    const options = { stores: [store.path], limitBytes: 64 * MIB };
    const snapshot = await takeSnapshot(t, [original.path], options);
    await writeChunks(t, front, 0, 2, 1);
    // It answers when it is healed: sooner, and it would be written to again.
    await store.keepWrites();
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

test(
  "an original that hangs: a snapshot of it can be destroyed",
  async (t) => {
    const { all, content } = await hangingDisks(t, 2);
    const [original, store] = all;
    const { client } = t;
    resumeAfter(t, all);
    const { front, detach } = await attach(t, original.path);
    const options = { stores: [store.path], limitBytes: 64 * MIB };
    const snapshot = await takeSnapshot(t, [original.path], options);
    await original.hang();
    const writing = writeChunks(t, front, 0, 1, 1);
    let isRead = false;
    const reading = readChunk(t, snapshot.images[0], 1).finally(() => {
      isRead = true;
    });
    // Both may be given up before they are seen: the original is late.
    const isReading = () => isRead || requestsInFlight(snapshot.images[0]) > 0;
    await until("the read is on its way", isReading);
    await until("the write is on its way", async () => {
      const status = await memberStatus(t, snapshot.id, original.path);
      return status.chunks_used === 1 || status.lost_bytes > 0;
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

test.run();
