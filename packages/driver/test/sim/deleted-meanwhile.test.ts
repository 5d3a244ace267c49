/** Fronts and images that end while the driver ends them: by another program, or later than it waits. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DEVICE, type World, within } from "./tracking-world.js";

/** Longer than a control command may take. */
const LATE_MS = 40_000;

/** Another program has deleted the device when the driver's first STOP_DEV arrives. */
function deleteAtStop({ machine: { ublk } }: World): void {
  ublk.fault = (name, id) => {
    if (name !== "STOP_DEV") return undefined;
    ublk.fault = undefined;
    ublk.devices.get(id)?.stop(() => undefined);
    return { errno: 19 };
  };
}

async function assertDetached(world: World): Promise<void> {
  assert.equal((await world.run(world.driver.status())).trackers, []);
  assert.equal([...world.machine.ublk.devices.keys()], []);
  await world.attach();
  await world.assertServes();
}

test("a front that another program deletes while it is detached is detached", () =>
  within(async (world) => {
    await world.attach();
    deleteAtStop(world);
    await world.run(world.driver.detach(DEVICE));
    await assertDetached(world);
  }));

test("an image that another program deletes while its snapshot is destroyed does not keep that", () =>
  within(async (world) => {
    await world.attach();
    const id = await world.take();
    deleteAtStop(world);
    await world.run(world.driver.snapshotDestroy(id));
    assert.equal((await world.run(world.driver.status())).snapshots, []);
    assert.is(world.machine.ublk.devices.size, 1);
    await world.assertServes();
  }));

test("a front whose end the kernel reports too late is detached when that is tried again", () =>
  within(async (world) => {
    await world.attach();
    const { ublk } = world.machine;
    ublk.fault = (name) => (name === "STOP_DEV" ? { delayMs: LATE_MS } : undefined);
    const error = await world.run(world.driver.detach(DEVICE).catch((reason) => reason));
    assert.is((error as { code: string }).code, "NO_ANSWER");
    ublk.fault = undefined;
    await world.machine.sleep(LATE_MS);
    await world.run(world.driver.detach(DEVICE));
    await assertDetached(world);
  }));

test.run();
