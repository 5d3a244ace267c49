/**
 * Disks that hang, as state of persistent trackers and as stores, and the daemons that are to end meanwhile
 * or to continue after one that was killed.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { Daemon } from "../lib/daemon.mjs";
import { readDevice } from "../lib/device-file.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import {
  BOUND_ARGS,
  chunkOf,
  hangingDisks,
  readChunk,
  resumeAfter,
  SIZE_BYTES,
  WRITE_BYTES,
  writeChunks,
} from "../lib/hanging-disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, memberStatus } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const WRITES = 24;
const LIMIT = { timeLimitMs: 600_000 };

async function daemon(t, all, args = [], options = {}) {
  const started = await Daemon.startFor(t, { args: [...BOUND_ARGS, ...args], ...options });
  resumeAfter(t, all);
  return started;
}

/** A persistent tracker with a snapshot, and the disks that its store and its state are on. */
async function persistentSnapshot(t) {
  const { all, content } = await hangingDisks(t, 3);
  const [original, store, state] = all;
  await makeFileSystem("ext4", state.path);
  const { path } = await mount(t, state.path);
  const directory = join(path, "state");
  mkdirSync(directory);
  const running = await daemon(t, all, ["--persistent-dir", directory]);
  const { client } = running;
  const { front } = await client.attach(original.path, { persistent: true });
  t.defer(() => client.detach(original.path).catch(() => undefined));
  const options = { stores: [store.path], limitBytes: 64 * MIB, persistent: true };
  const { id } = await client.snapshotCreate({ devices: [original.path], ...options });
  const { images } = await client.snapshotTake(id);
  await writeChunks(t, front, 0, 2, 1);
  const end = async () => {
    await client.snapshotDestroy(id);
    await client.detach(original.path);
    await Promise.all(all.map((disk) => disk.resume()));
    await running.stop();
  };
  return { original, store, state, content, client, front, id, image: images[0].image, end };
}

function trackerOf({ trackers }, device) {
  return trackers.find((tracker) => tracker.device === device);
}

test(
  "the disk of persistent state hangs: writers continue without it, and everything ends",
  async (t) => {
    const { original, state, content, client, front, id, image, end } = await persistentSnapshot(t);
    await state.hang();
    await writeChunks(t, front, 2, WRITES, 2);
    const status = await client.status();
    const { persistence } = trackerOf(status, original.path);
    assert.is(persistence.state, "failed");
    assert.match(persistence.why, /ETIMEDOUT/);
    assert.is(status.snapshots[0].persistent, false);
    // The store is well: nothing is lost.
    assert.is((await memberStatus(t, id, original.path)).lost_bytes, 0);
    assert.ok((await readDevice(t, image, SIZE_BYTES)).equals(content));
    await end();
  },
  LIMIT,
);

test(
  "the store of a persistent snapshot hangs: writers continue, and destroy ends",
  async (t) => {
    const { original, store, content, front, id, image, end } = await persistentSnapshot(t);
    await store.hang();
    await writeChunks(t, front, 2, WRITES, 2);
    const { late_io: late, lost_bytes: lost } = await memberStatus(t, id, original.path);
    assert.is(late, 1);
    assert.is(lost, WRITES * WRITE_BYTES);
    assert.equal(await readChunk(t, image, 30), chunkOf(content, 30));
    await end();
  },
  LIMIT,
);

test(
  "killed while a store hangs: the next daemon serves when the store has answered",
  async (t) => {
    const { all } = await hangingDisks(t, 2);
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
  "stopped while a store hangs: the daemon ends, and the store stays in use",
  async (t) => {
    const { all } = await hangingDisks(t, 2);
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
