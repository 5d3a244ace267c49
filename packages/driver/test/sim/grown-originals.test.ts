/**
 * An original that becomes larger under its front, on a kernel that can resize it: users reach the new part, and no
 * backup misses what they write there, whenever the daemon is killed or the power goes.
 */
import type { GrowthFaultPoint } from "@blksnap/data-plane";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { GROWTH_FAULT_POINTS } from "./load.js";
import { DISK_BYTES } from "./settings.js";
import { DEVICE, type World, within } from "./tracking-world.js";

/** Bits up to those of Linux 6.16. */
const KERNEL = { ublkFeatures: 0x7ff };
const OLD_KERNEL = { ublkFeatures: 0x3ff };
const GROWN_BYTES = DISK_BYTES + 3 * 65_536;
/** In the new part. */
const BEHIND = GROWN_BYTES - 4096;
/** Two looks, and what a growth takes. */
const WHILE_MS = 5000;

const settled = (world: World): Promise<void> => world.machine.sleep(WHILE_MS);

async function tracker(world: World) {
  const [found] = (await world.run(world.driver.status())).trackers;
  assert.ok(found !== undefined);
  return found;
}

/** Users have all of the original, and what they write is tracked. */
async function assertGrown(world: World): Promise<void> {
  const { front, capacity_bytes, capacity_why, cbt } = await tracker(world);
  assert.equal([capacity_bytes, capacity_why], [GROWN_BYTES, null]);
  assert.is(cbt.capacity_bytes, GROWN_BYTES);
  const [exported] = world.driver.nbd.all();
  assert.is(exported?.sizeBytes, GROWN_BYTES, "for NBD clients that connect from now on");
  const user = world.machine.user(front);
  assert.is(user.device.capacityBytes, GROWN_BYTES);
  user.close();
  const backup = await world.backup();
  await world.write(BEHIND);
  assert.is(world.disk.bytes[BEHIND], 7);
  assert.is(await world.verdict(backup, BEHIND), "continues");
}

for (const persistent of [true, false]) {
  const kind = persistent ? "a persistent tracker" : "a tracker";
  test(`the front of ${kind} grows, in a new generation`, () =>
    within(
      async (world) => {
        await world.attach(persistent);
        const [exported] = world.driver.nbd.all();
        assert.is(exported?.sizeBytes, DISK_BYTES);
        const backup = await world.backup();
        await world.write();
        world.disk.grow(GROWN_BYTES);
        await settled(world);
        const { cbt, persistence } = await tracker(world);
        assert.is(cbt.generation_reason, "capacity_changed");
        assert.is(persistence.state, persistent ? "on" : "off");
        assert.is(await world.verdict(backup), "anew");
        await assertGrown(world);
      },
      {},
      KERNEL,
    ));

  for (const end of ["kill", "power cut"] as const) {
    test(`${kind}, a ${end} at each step of it: nothing is missed, and the front has its size`, () =>
      eachPoint(persistent, end));
  }
}

/** At once, before any look: users never see a size that is not served, and tracking was not interrupted. */
async function assertServesAll(world: World, point: GrowthFaultPoint): Promise<void> {
  const { front, cbt } = await tracker(world);
  assert.is.not(cbt.generation_reason, "tracking_broken", point);
  const user = world.machine.user(front);
  const end = user.device.capacityBytes;
  user.close();
  await world.write(end - 4096);
  assert.is(world.disk.bytes[end - 4096], 7, point);
}

async function eachPoint(persistent: boolean, end: "kill" | "power cut"): Promise<void> {
  for (const point of GROWTH_FAULT_POINTS) {
    await within((world) => dieAt(world, point, persistent, end), {}, KERNEL);
  }
}

async function dieAt(
  world: World,
  point: GrowthFaultPoint,
  persistent: boolean,
  end: "kill" | "power cut",
): Promise<void> {
  await world.attach(persistent);
  const backup = await world.backup();
  await world.write();
  world.disk.grow(GROWN_BYTES);
  assert.ok(await world.dieAt(point, () => world.machine.sleep(WHILE_MS)), point);
  if (end === "power cut") await world.reboot();
  else {
    await world.start();
    await assertServesAll(world, point);
  }
  assert.is(await world.verdict(backup), "anew", point);
  await settled(world);
  await assertGrown(world);
}

test("a kept map continues after a power cut that comes when all is on record", () =>
  within(
    async (world) => {
      await world.attach();
      world.disk.grow(GROWN_BYTES);
      await settled(world);
      const backup = await world.backup();
      await world.write(BEHIND);
      await world.reboot();
      assert.is(await world.verdict(backup, BEHIND), "continues");
      await world.assertServes();
    },
    {},
    KERNEL,
  ));

test("in a snapshot that was taken it waits for the end of that, and the image keeps its size", () =>
  within(
    async (world) => {
      await world.attach();
      await world.write();
      const id = await world.take();
      world.disk.grow(GROWN_BYTES);
      await settled(world);
      const waiting = await tracker(world);
      assert.is(waiting.capacity_bytes, DISK_BYTES);
      assert.match(waiting.capacity_why ?? "", new RegExp(`when snapshot ${id} is destroyed`));
      assert.is(await world.imageByte(), 7);
      const image = world.machine.user(waiting.image as string);
      assert.is(image.device.capacityBytes, DISK_BYTES);
      image.close();
      await world.run(world.driver.snapshotDestroy(id));
      await settled(world);
      await assertGrown(world);
    },
    {},
    KERNEL,
  ));

test("a take grows first: its image has what users have", () =>
  within(
    async (world) => {
      await world.attach();
      const id = await world.create();
      world.disk.grow(GROWN_BYTES);
      await world.run(world.driver.snapshotTake(id));
      const { image } = await tracker(world);
      const user = world.machine.user(image as string);
      assert.is(user.device.capacityBytes, GROWN_BYTES);
      user.close();
      await world.run(world.driver.snapshotDestroy(id));
      await assertGrown(world);
    },
    {},
    KERNEL,
  ));

test("a take grows first, too, where a daemon died before the front had the size of its map", () =>
  within(
    async (world) => {
      await world.attach();
      const id = await world.create();
      world.disk.grow(GROWN_BYTES);
      const take = () => world.driver.snapshotTake(id);
      assert.ok(await world.dieAt("grow.map-replaced", take));
      await world.start();
      await world.run(take());
      const { front, image } = await tracker(world);
      for (const path of [front, image as string]) {
        const user = world.machine.user(path);
        assert.is(user.device.capacityBytes, GROWN_BYTES, path);
        user.close();
      }
      await world.run(world.driver.snapshotDestroy(id));
      await assertGrown(world);
    },
    {},
    KERNEL,
  ));

test("on a kernel that cannot resize, a growth fails with what to do, and nothing changes", () =>
  within(
    async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.write();
      world.disk.grow(GROWN_BYTES);
      await settled(world);
      const { capacity_bytes, original_capacity_bytes, capacity_why } = await tracker(world);
      assert.equal([capacity_bytes, original_capacity_bytes], [DISK_BYTES, GROWN_BYTES]);
      assert.match(capacity_why ?? "", /Linux 6\.16.*detach the device and attach it again/);
      assert.is(await world.verdict(backup), "continues");
      await world.run(world.driver.detach(DEVICE));
      await world.attach();
      await assertGrown(world);
    },
    {},
    OLD_KERNEL,
  ));

test("a front to which the kernel refuses the new size reports that, and gets it later", () =>
  within(
    async (world) => {
      await world.attach();
      const { ublk } = world.machine;
      ublk.fault = (name) => (name === "UPDATE_SIZE" ? { errno: 12 } : undefined);
      world.disk.grow(GROWN_BYTES);
      await settled(world);
      const { capacity_bytes, capacity_why, cbt } = await tracker(world);
      assert.equal([capacity_bytes, cbt.capacity_bytes], [DISK_BYTES, GROWN_BYTES]);
      assert.match(capacity_why ?? "", /the front has not grown yet: .*UPDATE_SIZE/);
      ublk.fault = undefined;
      await settled(world);
      await settled(world);
      await assertGrown(world);
    },
    {},
    KERNEL,
  ));

test("a write that does not end holds up others for a while only, and the front grows after it", () =>
  within(
    async (world) => {
      await world.attach();
      const { medium } = world.disk;
      medium.fault = ({ kind, offsetBytes }) =>
        kind === "write" && offsetBytes === 0 ? { hangs: true } : undefined;
      const user = world.machine.user((await tracker(world)).front);
      const hung = user.write(0, new Uint8Array(4096).fill(7), false);
      world.disk.grow(GROWN_BYTES);
      await settled(world);
      await world.write();
      await world.machine.sleep(60_000);
      const { capacity_bytes, capacity_why } = await tracker(world);
      assert.is(capacity_bytes, DISK_BYTES);
      assert.match(capacity_why ?? "", /writes in flight did not end in time/);
      await world.write();
      medium.fault = undefined;
      medium.release();
      await world.run(hung as Promise<unknown>);
      user.close();
      await world.machine.sleep(60_000);
      await assertGrown(world);
    },
    {},
    KERNEL,
  ));

test("a front does not become smaller: that is reported, and no snapshot is taken", () =>
  within(
    async (world) => {
      await world.attach();
      world.disk.grow(DISK_BYTES - 65_536);
      await settled(world);
      const { capacity_bytes, capacity_why } = await tracker(world);
      assert.is(capacity_bytes, DISK_BYTES);
      assert.match(capacity_why ?? "", /cannot become smaller.*give the original its size back/);
      const error = await world.take().catch((reason) => reason);
      assert.is(error.code, "DEVICE_CAPACITY_CHANGED");
    },
    {},
    KERNEL,
  ));

test.run();
