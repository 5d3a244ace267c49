/** What a daemon attaches automatically after a reboot during which disks were moved or exchanged. */
import { EIO } from "@blksnap/errors";
import { type SimDisk, SystemError } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ARRIVAL_PATIENCE_MS } from "../../dist/time-limits.js";
import { DISK_BYTES } from "./settings.js";
import { DEVICE, keepLastingNames, type World, within } from "./tracking-world.js";

const WRITTEN_AT = 65536;
/** The folder of records and journals on the medium. */
const LASTING = "/var/lib/blksnap/";
/** The simulation's serial of the first disk. */
const SERIAL = "SIM-sda";

/** Power cut; afterwards the name of the tracked disk leads to another one. */
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
  world: World,
  { serial, sizeBytes = DISK_BYTES }: { serial: string; sizeBytes?: number },
): SimDisk {
  remove(world);
  return world.machine.addDisk("sda", { serial, sizeBytes });
}

function remove({ machine }: World): void {
  machine.removeBlockDevice(machine.tree.directory("/dev").lookup("sda") as SimDisk);
}

async function tracked(world: World): Promise<string[]> {
  const { trackers } = await world.run(world.driver.status());
  return trackers.map(({ device }) => device);
}

for (const serial of ["OTHER", ""]) {
  const its = serial === "" ? "no serial number" : "another serial number";
  test(`a disk with ${its} is not attached automatically under the previous disk's name`, () =>
    within(async (world) => {
      await replaced(world, { serial });
      await world.start();
      assert.equal(await tracked(world), []);
      await world.attach();
      const { cbt } = (await world.run(world.driver.status())).trackers[0] ?? {};
      assert.is(cbt?.changes_number, 0);
      await world.assertServes();
    }));

  test(`the disk itself is attached under another name if its own leads to one with ${its}`, () =>
    within(async (world) => {
      await replaced(world, { serial });
      const moved = world.machine.addDisk("sdb", { serial: SERIAL, sizeBytes: DISK_BYTES });
      await world.start();
      await world.assertServes();
      await world.write();
      assert.is(moved.bytes[WRITTEN_AT], 7);
    }));
}

/** Starts a daemon; returns false if it waited for a disk. */
async function startsAtOnce(world: World): Promise<boolean> {
  const beganMs = world.machine.nowMs;
  await world.start();
  return world.machine.nowMs - beganMs < ARRIVAL_PATIENCE_MS;
}

/** @returns "" if it was forgotten; else the error, and the hint */
async function forgotten(world: World, device = DEVICE): Promise<string> {
  const forgetting = world.driver.detach(device, { forget: true });
  const text = forgetting.then(
    ({ front }) => front,
    ({ code, hint }) => `${code}: ${hint}`,
  );
  return await world.run(text);
}

for (const isGone of [true, false]) {
  const its = isGone ? "is gone" : "was replaced";
  test(`a disk that ${its} is waited for at each boot until it is forgotten`, () =>
    within(async (world) => {
      await replaced(world, { serial: "OTHER" });
      const { machine } = world;
      const boot = async (): Promise<boolean> => {
        machine.cut();
        await machine.settle();
        // After a power cut, all disks that the machine ever had are there.
        if (isGone) remove(world);
        return await startsAtOnce(world);
      };
      for (let boots = 0; boots < 2; boots++) assert.not(await boot());
      assert.match(await forgotten(world, "/dev/sdx"), ": Remembered and not attached: /dev/sda");
      assert.is(await forgotten(world), "");
      const text = await forgotten(world);
      assert.match(text, isGone ? /^DEVICE_NOT_FOUND: undefined/ : /^NOT_ATTACHED: undefined/);
      assert.ok(await boot());
      assert.equal(await tracked(world), []);
    }));
}

test("forgetting takes the record of the device at the path first, and then that of the name", () =>
  within(async (world) => {
    await replaced(world, { serial: "OTHER" });
    await world.start();
    // The other disk is tracked under the previous disk's name, and detached; its record stays.
    await world.attach();
    await world.run(world.driver.detach(DEVICE));
    assert.is(await forgotten(world), "", "the disk that is there");
    assert.is(await forgotten(world), "", "the one that had the name");
    assert.is(await forgotten(world), "NOT_ATTACHED: undefined");
  }));

test("a tracked device is detached first, and only its own record is forgotten", () =>
  within(async (world) => {
    await replaced(world, { serial: "OTHER" });
    await world.start();
    await world.attach();
    assert.match(await forgotten(world), "/dev/ublkb");
    const moved = world.machine.addDisk("sdb", { serial: SERIAL, sizeBytes: DISK_BYTES });
    world.machine.cut();
    await world.machine.settle();
    await world.start();
    await world.assertServes();
    await world.write();
    assert.is(moved.bytes[WRITTEN_AT], 7, "the other one is still remembered");
  }));

test("where the last writes to a tracked device fail, that is reported, and no other record is forgotten", () =>
  within(async (world) => {
    const other = await replaced(world, { serial: "OTHER" });
    await world.start();
    await world.attach();
    other.medium.fault = ({ kind }) => (kind === "sync" ? { errno: EIO } : undefined);
    assert.is(
      await forgotten(world),
      "DEVICE_FAILED: See dmesg; another detach gives these writes up",
    );
    other.medium.fault = undefined;
    assert.match(await forgotten(world), "/dev/ublkb");
    assert.is(await forgotten(world), "", "the one that had the name");
  }));

test("a medium that removes nothing is reported, and forgetting can be repeated", () =>
  within(async (world) => {
    await replaced(world, { serial: "OTHER" });
    await world.start();
    const restore = keepLastingNames(world, EIO);
    assert.match(await forgotten(world), /^PERSISTENT_STATE_UNUSABLE: /);
    restore();
    assert.is(await forgotten(world), "");
  }));

test("forgetting that ends between the record and its journal can be repeated, and leaves neither", () =>
  within(async (world) => {
    await replaced(world, { serial: "OTHER" });
    await world.start();
    const { files } = world.machine;
    const names = () => files.readdir(LASTING).filter((name) => /^(cbt|tracker)-/.test(name));
    assert.is(names().length, 2);
    const unlink = files.unlink.bind(files);
    let removals = 0;
    files.unlink = (path) => {
      if (path.startsWith(LASTING) && ++removals === 2) throw new SystemError(EIO, "unlink", path);
      unlink(path);
    };
    assert.match(await forgotten(world), /^PERSISTENT_STATE_UNUSABLE: /);
    assert.is(await forgotten(world), "");
    assert.equal(names(), []);
  }));

test("a disk without a name of its own is attached by its present name if it has the same size", () =>
  within(async (world) => {
    await replaced(world, { serial: "" }, "");
    await world.start();
    await world.assertServes();
  }));

test("a disk of another size is not", () =>
  within(async (world) => {
    await replaced(world, { serial: "", sizeBytes: 2 * DISK_BYTES }, "");
    await world.start();
    assert.equal(await tracked(world), []);
  }));

test.run();
