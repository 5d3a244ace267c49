/** What a daemon attaches by itself after a reboot in which disks were moved, or changed for others. */
import type { SimDisk } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DISK_BYTES } from "./settings.js";
import { type World, within } from "./tracking-world.js";

const WRITTEN_AT = 65536;
/** As the simulation names the first disk. */
const SERIAL = "SIM-sda";

/** Power goes; the name of the tracked disk leads to another one when it is back. */
async function replaced(
  world: World,
  other: { serial: string; sizeBytes?: number },
  before = SERIAL,
): Promise<SimDisk> {
  if (before !== SERIAL) replace(world, { serial: before });
  await world.attach();
  const backup = await world.backup();
  assert.is(backup.number, 1);
  world.machine.cut();
  await world.machine.settle();
  return replace(world, other);
}

function replace(
  { machine }: World,
  { serial, sizeBytes = DISK_BYTES }: { serial: string; sizeBytes?: number },
): SimDisk {
  machine.removeBlockDevice(machine.tree.directory("/dev").lookup("sda") as SimDisk);
  return machine.addDisk("sda", { serial, sizeBytes });
}

async function tracked(world: World): Promise<string[]> {
  const { trackers } = await world.run(world.driver.status());
  return trackers.map(({ device }) => device);
}

for (const serial of ["OTHER", ""]) {
  const its = serial === "" ? "no serial number" : "another serial number";
  test(`a disk with ${its} is not attached by the name of the one before, unless users do so`, () =>
    within(async (world) => {
      await replaced(world, { serial });
      await world.start();
      assert.equal(await tracked(world), []);
      await world.attach();
      const { cbt } = (await world.run(world.driver.status())).trackers[0] ?? {};
      assert.is(cbt?.changes_number, 0);
      await world.assertServes();
    }));

  test(`the disk itself is attached, under another name, where its own leads to one with ${its}`, () =>
    within(async (world) => {
      await replaced(world, { serial });
      const moved = world.machine.addDisk("sdb", { serial: SERIAL, sizeBytes: DISK_BYTES });
      await world.start();
      await world.assertServes();
      await world.write();
      assert.is(moved.bytes[WRITTEN_AT], 7);
    }));
}

test("a disk without any name of its own is attached by that which it has, if it has its size", () =>
  within(async (world) => {
    await replaced(world, { serial: "" }, "");
    await world.start();
    await world.assertServes();
  }));

test("one of another size is not", () =>
  within(async (world) => {
    await replaced(world, { serial: "", sizeBytes: 2 * DISK_BYTES }, "");
    await world.start();
    assert.equal(await tracked(world), []);
  }));

test.run();
