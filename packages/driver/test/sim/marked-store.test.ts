/**
 * A persistent snapshot whose store is a disk: nothing can be renamed when the disk of the journals fails and keeps the
 * record. The store itself says that the snapshot is over.
 */
import { Errno, type SimDisk } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { DISK_BYTES, LINKED_STORE, linkStore } from "./settings.js";
import { keepLastingNames, type World, within } from "./tracking-world.js";

async function takeOnDisk(world: World): Promise<{ id: string; disk: SimDisk }> {
  const disk = world.machine.addDisk("sds", { sizeBytes: 4 * DISK_BYTES });
  linkStore(world.machine);
  await world.attach();
  return { id: await world.take(true, LINKED_STORE), disk };
}

async function reboot(world: World, heal: () => void): Promise<void> {
  world.machine.cut();
  heal();
  await world.machine.settle();
  await world.start();
}

/** The disk of the journals accepts no journal, and removes no record. @returns function that ends that */
function failJournals(world: World): () => void {
  const { disksFs } = world.machine;
  const removeAgain = keepLastingNames(world, Errno.EIO);
  disksFs.medium.fault = ({ isDurable }) => (isDurable ? { errno: 5 } : undefined);
  return () => {
    removeAgain();
    disksFs.medium.fault = undefined;
  };
}

test("the snapshot is restored after a power cut, and after another one", () =>
  within(async (world) => {
    await takeOnDisk(world);
    for (let round = 0; round < 2; round++) {
      await world.write();
      await reboot(world, () => undefined);
      assert.is(await world.imageByte(), 0);
    }
  }, HANG_OPTIONS));

for (const isKilled of [false, true]) {
  const when = isKilled ? "with the next daemon" : "at once";
  test(`a snapshot that was given up is not restored, ${when}`, () =>
    within(async (world) => {
      await takeOnDisk(world);
      const heal = failJournals(world);
      await world.write();
      if (isKilled) {
        world.kill();
        await world.machine.settle();
        await world.start();
      }
      assert.is(await world.imageByte(), 0);
      await reboot(world, heal);
      assert.is(await world.imageByte(), undefined);
    }, HANG_OPTIONS));
}

test("if the store hangs, too, writes and the end of the snapshot wait for neither", () =>
  within(async (world) => {
    const { id, disk } = await takeOnDisk(world);
    const heal = failJournals(world);
    disk.medium.fault = ({ isDurable }) => (isDurable ? { hangs: true } : undefined);
    await world.write();
    await world.run(world.driver.snapshotDestroy(id));
    assert.equal((await world.run(world.driver.status())).snapshots, []);
    heal();
  }, HANG_OPTIONS));

test.run();
