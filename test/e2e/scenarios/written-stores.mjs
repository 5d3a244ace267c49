/** Stores of persistent snapshots that other programs write to, or only read, while the daemon is stopped. */
import { chmodSync, readdirSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { linear } from "../lib/device-mapper.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { fill, md5 } from "../lib/kept.mjs";
import { medium } from "../lib/medium.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";

const SIZE_MIB = 8;
const LIMIT_MIB = 12;
const DEVICE_MIB = 16;

const test = scenario(import.meta.url, { daemon: false });

/** Over one block, where the first and last MiB are not. */
function overwrite(path) {
  return run(["dd", "if=/dev/zero", `of=${path}`, "bs=4k", "count=1", "seek=300", "conv=notrunc"]);
}

function cutAndGrow(path) {
  const { size } = statSync(path);
  truncateSync(path, MIB);
  truncateSync(path, size);
}

/** As a backup program does it. */
async function readAll(path, copy) {
  await run(["dd", `if=${path}`, `of=${copy}`, "bs=1M"]);
  if (!statSync(path).isFile()) return;
  await run(["touch", "-a", path]);
  chmodSync(path, 0o640);
}

/** A persistent snapshot that has old data in the store. */
async function holdIn(t, store) {
  const original = await loopDisk(t, SIZE_MIB * MIB);
  const { front } = await t.client.attach(original, { persistent: true });
  await fill(front, 0, SIZE_MIB * 1024);
  const { id } = await t.client.snapshotCreate({
    devices: [original],
    stores: [store],
    limitBytes: LIMIT_MIB * MIB,
    persistent: true,
  });
  const { images } = await t.client.snapshotTake(id);
  const frozen = await md5(images[0].image);
  await fill(front, 256, 4096);
  return { id, original, frozen };
}

async function assertRight(t, { id, original, frozen }) {
  const { trackers } = await t.client.status();
  const { front, image } = trackers.find((tracker) => tracker.device === original);
  assert.is(await md5(image), frozen);
  await fill(front, 5 * 1024, 2048);
  assert.is(await md5(image), frozen);
  await t.client.snapshotDestroy(id);
}

test(
  "a foreign write to a store loses its snapshot and no other, and the log names it",
  async (t) => {
    const disk = await medium(t);
    const place = (name) => join(disk.path, name);
    const file = (name) => {
      writeFileSync(place(name), "");
      return place(name);
    };
    const device = async () => linear(t, await loopDisk(t, DEVICE_MIB * MIB));
    const inDirectory = () => place(join("stores", readdirSync(disk.stores)[0]));
    const stores = [
      { store: file("overwritten"), change: overwrite, isLost: true },
      { store: file("cut"), change: cutAndGrow, isLost: true },
      { store: disk.stores, change: () => overwrite(inDirectory()), isLost: true },
      { store: await device(), change: overwrite, isLost: true },
      { store: file("read"), change: (path) => readAll(path, place("copy")), isLost: false },
      { store: await device(), change: (path) => readAll(path, place("copy")), isLost: false },
    ];
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const held = [];
    for (const { store } of stores) held.push(await holdIn(t, store));
    await t.daemon.stop();
    for (const { store, change } of stores) await change(store);
    t.daemon = await disk.start();
    const lines = t.daemon.log().split("\n");
    const saidOf = (store) => `snapshot is lost: another program wrote to the store ${store} while`;
    assert.equal(
      stores.map(({ store }) => lines.some((line) => line.includes(saidOf(store)))),
      stores.map(({ isLost }) => isLost),
    );
    const { snapshots } = await t.client.status();
    const present = new Set(snapshots.map(({ id }) => id));
    assert.equal(
      held.map(({ id }) => !present.has(id)),
      stores.map(({ isLost }) => isLost),
    );
    for (const one of held) if (present.has(one.id)) await assertRight(t, one);
    for (const { original } of held) await t.client.detach(original, { forget: true });
  },
  { timeLimitMs: 1_200_000 },
);

test.run();
