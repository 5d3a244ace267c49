/**
 * Persistent trackers and snapshots within one boot: killed, stopped, started, written to directly,
 * and a medium that fails. What a power cut does to them is shown in test/e2e/power.
 */
import { mkdirSync, readdirSync, renameSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "../../../packages/data-plane/dist/fault-points.js";
import { run, start } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile, loopDisk, nullDisk } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { endFio, startFio, VERIFIED_WRITES } from "../lib/fio.mjs";
import {
  assertHeld,
  assertNothingKept,
  createKept,
  fill,
  heldSnapshot,
  LIMIT_BYTES,
  md5,
  waitForNext,
} from "../lib/kept.mjs";
import { medium } from "../lib/medium.mjs";
import { untilOpen } from "../lib/open-files.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_MIB = 24;
const BLOCK_BYTES = 65536;
/** So many blocks that the log has no room for every other one. */
const WIDE_MIB = 12_288;
/** Each test starts a few daemons. */
const LIMIT = { timeLimitMs: 1_200_000 };

const test = scenario(import.meta.url, { daemon: false, sampledIn: 3 });

function trackerOf({ trackers }, device) {
  return trackers.find((tracker) => tracker.device === device);
}

/** Takes a snapshot and destroys it, so that `diff` shows what was written before. */
async function roll(t, device, { stores }) {
  const { id } = await t.client.snapshotCreate({
    devices: [device],
    stores: [stores],
    limitBytes: LIMIT_BYTES,
  });
  await t.client.snapshotTake(id);
  await t.client.snapshotDestroy(id);
}

function covers(ranges, offsetBytes) {
  return ranges.some(
    ({ offset_bytes: first, length_bytes: length }) =>
      first <= offsetBytes && offsetBytes < first + length,
  );
}

test(
  "a held snapshot and its tracker continue after a kill under load, a stop and a start",
  async (t) => {
    const disk = await medium(t);
    const device = await loopDisk(t, SIZE_MIB * MIB);
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const { front, persistent } = await t.client.attach(device, { persistent: true });
    assert.ok(persistent);
    await fill(front, 0, SIZE_MIB * 1024);
    const before = await md5(front);
    const { id } = await createKept(t, disk, device);
    const { images } = await t.client.snapshotTake(id);
    const load = { ...VERIFIED_WRITES, runtime: 600 };
    const writing = startFio(t, front, load, { timeLimitMs: 600_000 });
    await until("something was saved", async () => {
      const { snapshots } = await t.client.status();
      return snapshots[0].devices[0].copied_bytes > 2 * MIB;
    });
    const { pid } = t.daemon;
    t.daemon.kill("SIGKILL");
    await t.daemon.ended();
    t.daemon = await disk.start();
    await waitForNext(t, pid);
    await endFio(writing);
    assert.is(await md5(images[0].image), before);

    const { generation_id: generation } = await t.client.cbtInfo(device);
    await t.daemon.stop();
    assert.equal(readdirSync("/sys/class/ublk-char"), []);
    t.daemon = await disk.start();
    const status = await t.client.status();
    const tracker = trackerOf(status, device);
    assert.equal(tracker.persistence, { state: "on", why: null });
    assert.is(tracker.cbt.generation_id, generation);
    assert.is(status.snapshots[0].id, id);
    assert.ok(status.snapshots[0].persistent);
    assert.is(await md5(tracker.image), before);
    await fill(tracker.front, 0, 4096);
    assert.is(await md5(tracker.image), before);

    await t.client.snapshotDestroy(id);
    await assertNothingKept(t, disk, device);
  },
  LIMIT,
);

test(
  "a daemon killed while it stops loses no persistent snapshot, nor does a store that comes late",
  async (t) => {
    const disk = await medium(t);
    const device = await loopDisk(t, SIZE_MIB * MIB);
    const faults = new Faults(t);
    t.daemon = await disk.start(faults.environment);
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(device, { persistent: true });
    await fill(front, 0, 2048);
    const held = await heldSnapshot(t, disk, device);
    for (const point of FAULT_POINTS.filter((name) => name.startsWith("suspend."))) {
      await faults.arm(point);
      t.daemon.kill("SIGTERM");
      await faults.met();
      await t.daemon.ended();
      t.daemon = await disk.start(faults.environment);
      await assertHeld(t, held);
    }
    await t.daemon.stop();
    renameSync(disk.stores, `${disk.stores}-away`);
    t.daemon = disk.begin();
    const isMissed = () => t.daemon.log().includes("not found yet: waiting for it");
    await until("the daemon misses the store", isMissed);
    renameSync(`${disk.stores}-away`, disk.stores);
    await t.daemon.untilServing();
    await assertHeld(t, held);
    await t.client.snapshotDestroy(held.id);
    await assertNothingKept(t, disk, device);
  },
  LIMIT,
);

test(
  "detach writes back more blocks than the journal's log takes at a time",
  async (t) => {
    const disk = await medium(t);
    const device = await nullDisk(t, { sizeMib: WIDE_MIB, isForgetful: true });
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(device, { persistent: true });
    // Held open, so that what is written stays in the page cache until detach flushes it.
    const holder = start(["sh", "-c", `exec sleep infinity 3<${front}`], { timeLimitMs: 600_000 });
    t.defer(() => holder.end());
    t.defer(() => holder.kill("SIGKILL"));
    await untilOpen(holder.pid, front);
    // A gap after each, so that nothing is recorded ahead.
    const writes = (WIDE_MIB * MIB) / (2 * BLOCK_BYTES);
    await run([
      ...["fio", "--name=wide", `--filename=${front}`, "--rw=write:124k", "--bs=4k", "--direct=0"],
      ...[`--io_size=${writes * 4096}`, "--ioengine=psync", "--end_fsync=0"],
    ]);
    await t.client.detach(device, { forget: true });
  },
  LIMIT,
);

test(
  "writes that bypassed the front are found, and begin a new generation",
  async (t) => {
    const disk = await medium(t);
    const device = await loopDisk(t, SIZE_MIB * MIB);
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(device, { persistent: true });
    await fill(front, 1024, 64);
    await roll(t, device, disk);
    const first = await t.client.cbtInfo(device);
    await t.client.detach(device);

    // No writes: the same generation, and the tracker is persistent without --persistent.
    const again = await t.client.attach(device);
    assert.ok(again.persistent);
    assert.is((await t.client.cbtInfo(device)).generation_id, first.generation_id);
    await fill(again.front, 10240, 64);
    await roll(t, device, disk);
    const { ranges } = await t.client.diff(device, first.changes_number);
    assert.ok(covers(ranges, 10240 * 1024));
    assert.not.ok(covers(ranges, 1024 * 1024));
    await t.client.detach(device);

    await fill(device, 20480, 4);
    // A loop device has no name of its own: changed, it is the recorded one only where the caller says so.
    await t.client.attach(device, { persistent: true });
    const { persistence, cbt } = trackerOf(await t.client.status(), device);
    assert.is(cbt.generation_reason, "foreign_write");
    assert.not.equal(cbt.generation_id, first.generation_id);
    assert.match(persistence.why, /sectors|written|write/);
    await t.client.detach(device, { forget: true });
    await t.client.attach(device);
    const fresh = trackerOf(await t.client.status(), device);
    assert.is(fresh.persistence.state, "off");
    assert.is(fresh.cbt.generation_reason, "first_attach");
  },
  LIMIT,
);

test(
  "a snapshot is lost if its original was written to directly; the tracker is not",
  async (t) => {
    const disk = await medium(t);
    const device = await loopDisk(t, SIZE_MIB * MIB);
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const { id } = await createKept(t, disk, device);
    await t.client.snapshotTake(id);
    await t.daemon.stop();
    await fill(device, 8192, 4);
    // Killed after the image was given up and before it is forgotten, it is not believed by the next one.
    const faults = new Faults(t);
    await faults.arm("recover.fronts-live");
    const died = await disk.start(faults.environment).catch(({ message }) => message);
    assert.match(String(died), "the daemon ended at once");
    t.daemon = await disk.start();
    const { trackers, snapshots } = await t.client.status();
    assert.is(trackers[0].cbt.generation_reason, "foreign_write");
    assert.is(trackers[0].image, null);
    assert.equal(snapshots, []);
    await assertNothingKept(t, disk, device);
  },
  LIMIT,
);

test(
  "stores in memory, trackers that are not persistent, and a state on its own device are refused",
  async (t) => {
    const disk = await medium(t);
    const [device, other] = [await loopDisk(t, SIZE_MIB * MIB), await loopDisk(t, SIZE_MIB * MIB)];
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const create = (devices, stores) =>
      t.client
        .snapshotCreate({ devices, stores, limitBytes: LIMIT_BYTES, persistent: true })
        .then(() => "created")
        .catch(({ code }) => code);
    assert.is(await create([device], ["memory:"]), "STORE_NOT_PERSISTENT");
    assert.is(await create([device], [t.folder]), "STORE_NOT_PERSISTENT");
    assert.is(await create([device], [await loopDisk(t, MIB)]), "STORE_NOT_PERSISTENT");
    await t.client.attach(other);
    assert.is(await create([other], [disk.stores]), "TRACKER_NOT_PERSISTENT");
    const refused = await t.client.attach(other, { persistent: true }).catch(({ code }) => code);
    assert.is(refused, "TRACKER_NOT_PERSISTENT");
    assert.equal(
      (await t.client.status()).trackers.map((tracker) => tracker.device),
      [other],
    );
    await t.client.detach(other);
  },
  LIMIT,
);

test(
  "a state on a front of the daemon is refused",
  async (t) => {
    const [device, other] = [await loopDisk(t, SIZE_MIB * MIB), await loopDisk(t, SIZE_MIB * MIB)];
    const place = join(t.folder, "place");
    mkdirSync(place);
    t.defer(() => rmdirSync(place));
    const args = ["--persistent-dir", join(place, "lost+found")];
    t.daemon = await Daemon.start({ args });
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(other);
    await makeFileSystem("ext4", front);
    await run(["mount", front, place]);
    const refused = await t.client.attach(device, { persistent: true }).catch((error) => error);
    await run(["umount", place]);
    assert.is(refused.code, "PERSISTENT_STATE_ON_DEVICE");
    assert.match(refused.message, front);
    await t.client.detach(other);
  },
  LIMIT,
);

test(
  "a file that the daemon's own directory lies on is refused",
  async (t) => {
    const file = imageFile(t, 32 * MIB);
    const disk = await loopDisk(t, 32 * MIB, { file });
    await makeFileSystem("ext4", disk);
    const { path, unmount } = await mount(t, disk);
    t.daemon = await Daemon.start({ args: ["--persistent-dir", path] });
    for (const persistent of [false, true]) {
      const refused = await t.client.attach(file, { persistent }).catch((error) => error);
      assert.is(refused.code, "DEVICE_BUSY");
      assert.match(refused.message, "holds the daemon's files");
    }
    await t.daemon.stop();
    await unmount();
    t.daemon = await Daemon.start();
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(file);
    await t.client.detach(front);
  },
  LIMIT,
);

test(
  "when the medium fails, writes continue and status says it",
  async (t) => {
    t.expectKernelMessages(/EXT4-fs|I\/O error|Buffer I\/O|JBD2|device-mapper|Aborting/);
    const disk = await loopDisk(t, 64 * MIB);
    const table = (target) => `0 ${(64 * MIB) / 512} ${target}`;
    await run(["dmsetup", "create", "blksnap-bad", "--table", table(`linear ${disk} 0`)]);
    t.defer(() => run(["dmsetup", "remove", "--retry", "blksnap-bad"]));
    await makeFileSystem("ext4", "/dev/mapper/blksnap-bad");
    const { path } = await mount(t, "/dev/mapper/blksnap-bad");
    const device = await loopDisk(t, SIZE_MIB * MIB);
    t.daemon = await Daemon.start({ args: ["--persistent-dir", join(path, "state")] });
    t.defer(() => t.daemon.stop());
    const { front } = await t.client.attach(device, { persistent: true });
    await fill(front, 0, 64);
    await run(["dmsetup", "suspend", "--noflush", "--nolockfs", "blksnap-bad"]);
    await run(["dmsetup", "load", "blksnap-bad", "--table", table("error")]);
    await run(["dmsetup", "resume", "blksnap-bad"]);
    // Blocks that the journal does not have: nothing may keep them from the original.
    await fill(front, 16384, 1024);
    const failed = () =>
      t.client.status().then((status) => trackerOf(status, device).persistence.state === "failed");
    await until("status shows it", failed);
    await roll(t, device, { stores: "memory:" });
    const { ranges } = await t.client.diff(device, 0);
    assert.ok(covers(ranges, 16384 * 1024 + BLOCK_BYTES));
    await t.client.detach(device);
  },
  LIMIT,
);

test.run();
