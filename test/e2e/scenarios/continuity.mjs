/**
 * A persistent tracker's decision after a gap, and what remains if it could not be attached or detached. Boots are
 * simulated beside the driver, and real in test/e2e/power.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "../../../packages/data-plane/dist/fault-points.js";
import { run } from "../lib/command.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import { makeFileSystem } from "../lib/file-systems.mjs";
import { added, holdings, ublkDevices } from "../lib/leftovers.mjs";
import { medium } from "../lib/medium.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_MIB = 24;
const LIMIT = { timeLimitMs: 480_000 };

const test = scenario(import.meta.url, { daemon: false, sampledIn: 3 });

function trackerOf({ trackers }, device) {
  return trackers.find((tracker) => tracker.device === device);
}

/** Two loop devices whose files stay, a raw one and an ext4. */
async function pluggable(t, disk) {
  const files = ["raw", "ext4"].map((name) => join(disk.path, name));
  const devices = [];
  for (const file of files) {
    await run(["truncate", "-s", String(SIZE_MIB * MIB), file]);
    devices.push((await run(["losetup", "--find", "--show", file])).trim());
  }
  t.defer(async () => {
    for (const device of devices) await run(["losetup", "-d", device]);
  });
  const [raw, ext4] = devices;
  await makeFileSystem("ext4", ext4);
  const plugAgain = async () => {
    for (const device of devices) await run(["losetup", "-d", device]);
    for (const [index, device] of devices.entries()) await run(["losetup", device, files[index]]);
  };
  return { raw, ext4, devices, plugAgain };
}

/** All records of trackers, as text. */
function recordsIn({ state }) {
  const names = readdirSync(state).filter((name) => name.endsWith(".record"));
  return names.map((name) => readFileSync(join(state, name), "utf8")).join();
}

test(
  "a device that was missing keeps its map only if its file system proves that there were no writes",
  async (t) => {
    const disk = await medium(t);
    const { raw, ext4, devices, plugAgain } = await pluggable(t, disk);
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    const attachBoth = async () => {
      for (const device of devices) await t.client.attach(device, { persistent: true });
      const status = await t.client.status();
      return [trackerOf(status, raw), trackerOf(status, ext4)];
    };
    const detachBoth = async (options) => {
      for (const device of devices) await t.client.detach(device, options);
    };
    const [rawFirst, ext4First] = await attachBoth();
    const point = join(t.folder, "mounted");
    mkdirSync(point);
    t.defer(() => rmdirSync(point));
    await run(["mount", ext4First.front, point]);
    // Recorded while it is mounted: after a power cut the superblock is compared with the record.
    await until("the mount is on record", () => recordsIn(disk).includes('\\"mounts\\":1,'));
    await run(["umount", point]);
    await detachBoth();

    await plugAgain();
    const [rawAway, ext4Away] = await attachBoth();
    const why = JSON.stringify(ext4Away);
    assert.is(ext4Away.cbt.generation_id, ext4First.cbt.generation_id, why);
    assert.is.not(rawAway.cbt.generation_id, rawFirst.cbt.generation_id);
    assert.is(rawAway.cbt.generation_reason, "tracking_broken");
    assert.match(rawAway.persistence.why, /was missing/);
    await detachBoth();

    await run(["mount", ext4, point]);
    await run(["umount", point]);
    await plugAgain();
    const [, ext4Mounted] = await attachBoth();
    assert.is(ext4Mounted.cbt.generation_reason, "foreign_write");
    await detachBoth({ forget: true });
    assert.equal(readdirSync(disk.state), ["lock"]);
  },
  LIMIT,
);

test("a partition that was recreated elsewhere on its disk has its own map", async (t) => {
  const disk = await medium(t);
  const file = join(disk.path, "partitioned");
  await run(["truncate", "-s", String(SIZE_MIB * MIB), file]);
  const whole = (await run(["losetup", "--find", "--show", "--partscan", file])).trim();
  t.defer(() => run(["losetup", "-d", whole]));
  const sectors = (4 * MIB) / 512;
  const make = (startMib) =>
    run(["addpart", whole, "1", String((startMib * MIB) / 512), String(sectors)]);
  await make(1);
  t.defer(() => run(["delpart", whole, "1"]));
  const device = `${whole}p1`;
  t.daemon = await disk.start();
  t.defer(() => t.daemon.stop());
  const attach = async () => {
    await t.client.attach(device, { persistent: true });
    return trackerOf(await t.client.status(), device);
  };
  const first = await attach();
  await t.client.detach(device);
  const again = await attach();
  assert.is(again.cbt.generation_id, first.cbt.generation_id, JSON.stringify(again));
  await t.client.detach(device);

  // Zeros in both places, and nothing writes.
  await run(["delpart", whole, "1"]);
  await make(8);
  const moved = await attach();
  assert.is.not(moved.cbt.generation_id, first.cbt.generation_id);
  assert.is(moved.cbt.generation_reason, "foreign_write");
  assert.match(moved.persistence.why, "first byte on the disk was 1048576 and is 8388608");
  await t.client.detach(device, { forget: true });
});

test(
  "each start waits for a missing device until it is forgotten by its name",
  async (t) => {
    const disk = await medium(t);
    const below = await loopDisk(t, SIZE_MIB * MIB);
    const table = `0 ${(SIZE_MIB * MIB) / 512} linear ${below} 0`;
    await run(["dmsetup", "create", "gone", "--uuid", "TEST-gone", "--table", table]);
    const device = "/dev/mapper/gone";
    const remove = () => run(["dmsetup", "remove", "--retry", "gone"]);
    t.defer(() => remove().catch(() => undefined));
    t.daemon = await disk.start();
    t.defer(() => t.daemon.stop());
    await t.client.attach(device, { persistent: true });
    await t.daemon.stop();
    await remove();
    const isWaited = () => t.daemon.log().includes("not found yet: waiting for it");
    t.daemon = await disk.start();
    assert.ok(isWaited());
    assert.match(t.daemon.log(), `blksnapctl detach --device ${device} --forget`);
    assert.equal(trackerOf(await t.client.status(), device), undefined);
    const other = await t.client.detach("/dev/blksnap-other", { forget: true }).catch((e) => e);
    assert.equal([other.code, other.hint.includes(device)], ["DEVICE_NOT_FOUND", true]);
    const link = "/dev/disk/by-id/dm-uuid-TEST-gone";
    assert.ok(other.hint.includes(link));
    const forgotten = await t.client.detach(link, { forget: true });
    assert.equal(forgotten, { device, front: "" });
    assert.equal(readdirSync(disk.state), ["lock"]);
    await t.daemon.stop();
    t.daemon = await disk.start();
    assert.not.ok(isWaited());
  },
  LIMIT,
);

/** What a daemon has, and what is on its media. */
function inventory(t, { state }) {
  // Connections of this test's own requests come and go.
  const held = holdings(t.daemon.pid).filter((name) => !name.startsWith("socket"));
  return [...held, ...readdirSync(state), ...ublkDevices()];
}

test(
  "an attach and a detach that fail at any step leave nothing behind",
  async (t) => {
    const disk = await medium(t);
    const device = await loopDisk(t, SIZE_MIB * MIB);
    const faults = new Faults(t);
    t.daemon = await disk.start(faults.environment);
    t.defer(() => t.daemon.stop());
    const attach = () => t.client.attach(device, { persistent: true });
    const forget = () => t.client.detach(device, { forget: true });
    const messageOf = (operation) =>
      operation.then(
        () => "it worked",
        ({ message }) => message,
      );
    await attach();
    await forget();
    const before = inventory(t, disk);
    const assertNothingLeft = async (point) => {
      assert.equal((await t.client.status()).trackers, [], point);
      // The connection of the last request, and the ring's last words, take a moment to go: also before.
      const left = () => added(before, inventory(t, disk));
      const isNothingLeft = () => left().length === 0;
      await until(`nothing is left after ${point}`, isNothingLeft).catch((error) => {
        throw new Error(`${error.message}:\n${left().join("\n")}`);
      });
    };
    const steps = (name) => FAULT_POINTS.filter((point) => point.startsWith(name));
    // Once it is linked it is attached, and until its front has stopped it still is. When the queue has
    // started, that is known: there is no step between.
    const none = ["attach.queue-started", "attach.linked"];
    for (const point of steps("attach.").filter((name) => !none.includes(name))) {
      await faults.arm(`throws ${point}`);
      assert.match(await messageOf(attach()), "fails", point);
      await assertNothingLeft(point);
    }
    const still = ["detach.front-synced", "detach.front-left"];
    for (const point of steps("detach.").filter((name) => !still.includes(name))) {
      await attach();
      await faults.arm(`throws ${point}`);
      assert.match(await messageOf(forget()), "fails", point);
      await assertNothingLeft(point);
    }
  },
  LIMIT,
);

test.run();
