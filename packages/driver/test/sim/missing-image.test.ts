/** Images that the next daemon cannot resume: their snapshot is not lost, because old data is copied all the same. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type World, within } from "./tracking-world.js";

const ENOMEM = 12;

/** A daemon that has taken a snapshot dies. @returns the number of the front */
async function killedAfterTake(world: World): Promise<number | undefined> {
  await world.attach();
  await world.write();
  await world.take(true);
  world.kill();
  await world.machine.settle();
  const [front] = world.machine.ublk.devices.keys();
  return front;
}

/** A daemon that has taken a snapshot dies; for the next one, these commands fail for anything but the front. */
async function followed(world: World, failing: readonly string[]): Promise<string | null> {
  const front = await killedAfterTake(world);
  const { ublk } = world.machine;
  ublk.fault = (name, id) =>
    id !== front && failing.includes(name) ? { errno: ENOMEM } : undefined;
  await world.start();
  ublk.fault = undefined;
  await world.assertServes();
  const [snapshot] = (await world.run(world.driver.status())).snapshots;
  assert.is(snapshot?.taken, true, "it is there");
  return snapshot?.devices[0]?.image ?? null;
}

async function assertShowsOldData(world: World): Promise<void> {
  const user = world.machine.user("/dev/ublkb0");
  await world.machine.run(user.write(65_536, new Uint8Array(4096).fill(9)));
  user.close();
  world.kill();
  await world.machine.settle();
  await world.start();
  assert.is(await world.imageByte(), 7);
}

test("an image that cannot be resumed is made again", () =>
  within(async (world) => {
    assert.ok(await followed(world, ["START_USER_RECOVERY"]));
    assert.is(await world.imageByte(), 7);
    await assertShowsOldData(world);
  }));

test("an image that the kernel does not tell of at first is made again", () =>
  within(async (world) => {
    const front = await killedAfterTake(world);
    const { ublk } = world.machine;
    ublk.fault = (name, id) => {
      if (name !== "GET_DEV_INFO" || id === front) return undefined;
      ublk.fault = undefined;
      return { errno: ENOMEM };
    };
    await world.start();
    assert.is(await world.imageByte(), 7);
    assert.is(ublk.devices.size, 2, "nothing is left of the image before");
    await assertShowsOldData(world);
  }));

test("an image that cannot be made is missing until the next start, and has all old data then", () =>
  within(async (world) => {
    assert.is(await followed(world, ["START_USER_RECOVERY", "ADD_DEV"]), null);
    await assertShowsOldData(world);
  }));

test.run();
