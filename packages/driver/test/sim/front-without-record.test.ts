/** A front whose record cannot be used, such as a newer program's: no device gets a second front. */
import fs from "node:fs";
import { join } from "node:path";
import type { ControlError } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DISK_BYTES, STATE_DIRECTORY } from "./settings.js";
import { DEVICE, type World, within } from "./tracking-world.js";

const OTHER = "/dev/sdb";

/** Including copies. @returns their content, by path */
function recordsOf(kind: RegExp): Map<string, string> {
  const names = fs.readdirSync(STATE_DIRECTORY).filter((name) => kind.test(name));
  const paths = names.map((name) => join(STATE_DIRECTORY, name));
  return new Map(paths.map((path) => [path, fs.readFileSync(path, "utf8")]));
}

/** A daemon that served the device dies; the next one cannot read records of its version. */
async function followedByOlder(world: World): Promise<Map<string, string>> {
  world.machine.addDisk("sdb", { sizeBytes: DISK_BYTES });
  await world.attach();
  return unreadable(world, /^tracker-.*record/);
}

async function unreadable(world: World, kind: RegExp): Promise<Map<string, string>> {
  const records = recordsOf(kind);
  for (const [path, text] of records) {
    fs.writeFileSync(path, text.replace(/^blksnap-record [0-9]+/, "blksnap-record 9"));
  }
  await another(world);
  return records;
}

async function another(world: World): Promise<void> {
  world.kill();
  await world.machine.settle();
  await world.start();
}

async function refusal(world: World, device: string): Promise<ControlError> {
  const attaching = world.driver.attach(device).then(
    () => assert.unreachable(`${device} has been attached`),
    (error: unknown) => error,
  );
  return (await world.run(attaching)) as ControlError;
}

test("nothing is attached while a front without a record waits; a daemon that knows it resumes it", () =>
  within(async (world) => {
    const records = await followedByOlder(world);
    assert.equal((await world.run(world.driver.status())).trackers, []);
    const [front] = world.machine.ublk.devices.keys();
    for (const device of [DEVICE, OTHER]) {
      const { code, message } = await refusal(world, device);
      assert.is(code, "DEVICE_BUSY");
      assert.match(message, `${device} may be the original of /dev/ublkb${front}`);
    }
    const options = { devices: [OTHER], stores: ["/var/tmp"], limitBytes: 2 ** 22 };
    const created = await world.run(world.driver.snapshotCreate(options).then(() => "", String));
    assert.match(created, "may be the original");
    assert.equal([...world.machine.ublk.devices.keys()], [front]);
    for (const [path, text] of records) fs.writeFileSync(path, text);
    await another(world);
    await world.assertServes();
    assert.equal([...world.machine.ublk.devices.keys()], [front]);
    await world.run(world.driver.attach(OTHER));
  }));

test("once the front is given up, devices can be attached again", () =>
  within(async (world) => {
    await followedByOlder(world);
    await world.deleteFront();
    await world.run(world.driver.attach(OTHER));
    await world.attach();
    const { trackers } = await world.run(world.driver.status());
    assert.equal(trackers.map(({ device }) => device).sort(), [DEVICE, OTHER]);
  }));

test("once the front is given up, a held-back persistent tracker waits for users or the next start", () =>
  within(async (world) => {
    world.machine.addDisk("sdb", { sizeBytes: DISK_BYTES });
    await world.run(world.driver.attach(OTHER, { persistent: true }));
    await world.attach();
    await unreadable(world, /^tracker-1[.]record/);
    const tracked = async () => {
      const { trackers } = await world.run(world.driver.status());
      return trackers.map(({ device }) => device).sort();
    };
    assert.equal([await tracked(), world.driver.held.isHolding], [[DEVICE], true]);
    // The front of the other one, which was attached first.
    await world.deleteFront();
    assert.ok(await world.run(world.driver.held.over));
    await world.machine.sleep(60_000);
    assert.equal([await tracked(), world.driver.held.isHolding], [[DEVICE], false]);
    await another(world);
    assert.equal(await tracked(), [DEVICE, OTHER]);
  }));

/** There is no image of the persistent snapshot after a power cut: later writes are in no copy. */
async function assertNoImage(world: World): Promise<void> {
  await world.write();
  await world.reboot();
  await world.assertServes();
  for (const { id } of await world.run(world.driver.snapshotCollect())) {
    const { devices } = await world.run(world.driver.snapshotStatus(id));
    assert.equal(
      devices.map(({ image }) => image).filter((image) => image !== null),
      [],
    );
  }
}

test("a persistent snapshot is not resumed after writes that followed the giving up of the front", () =>
  within(async (world) => {
    await world.attach();
    await world.take(true);
    await unreadable(world, /record/);
    await world.deleteFront();
    await world.attach();
    await assertNoImage(world);
  }));

test("no map continues after writes through a front that was served beside the one without a record", () =>
  within(async (world) => {
    world.machine.addDisk("sdb", { sizeBytes: DISK_BYTES });
    await world.run(world.driver.attach(OTHER));
    await world.attach();
    await world.take(true);
    await unreadable(world, /^(tracker-1|snapshot-.*)[.]record/);
    await assertNoImage(world);
  }));

test.run();
