/**
 * A persistent snapshot is to end while the disk of its journals answers with errors: nothing waits for that, and
 * earlier errors are no reason to fail when the disk works again.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { faults } from "./load.js";
import { DISK_BYTES } from "./settings.js";
import { keepLastingNames, type World, within } from "./tracking-world.js";

/** Linux's number. */
const EROFS = 30;
const ENOSPC = 28;

/** The disk of the journals accepts no writes and no removals. @returns function that ends that */
function makeReadOnly(world: World): () => void {
  const { disksFs } = world.machine;
  const removeAgain = keepLastingNames(world, EROFS);
  disksFs.medium.fault = ({ kind, isDurable }) =>
    isDurable || kind === "sync" ? { errno: EROFS } : undefined;
  return () => {
    removeAgain();
    disksFs.medium.fault = undefined;
  };
}

/** @returns the snapshot, whose take fails as soon as it has images */
async function failTake(world: World, fail: () => void): Promise<string> {
  const id = await world.create(true);
  faults.onPoint = (point) => {
    if (point === "take.image-linked") fail();
  };
  assert.is(await codeOf(world, world.driver.snapshotTake(id)), "PERSISTENT_STATE_UNUSABLE");
  faults.onPoint = () => undefined;
  return id;
}

function codeOf(world: World, work: Promise<unknown>): Promise<string> {
  return world.run(
    work.then(
      () => "done",
      ({ code }: { code: string }) => code,
    ),
  );
}

test("a read-only disk without writers: a warning that the snapshot may return, then its destroy", () =>
  within(async (world) => {
    await world.attach();
    const id = await world.take(true);
    const heal = makeReadOnly(world);
    assert.is(await codeOf(world, world.driver.snapshotDestroy(id)), "PERSISTENT_STATE_UNUSABLE");
    assert.is(await world.imageByte(), 0);
    await world.run(world.driver.snapshotDestroy(id));
    assert.equal((await world.run(world.driver.status())).snapshots, []);
    await world.write();
    world.machine.cut();
    heal();
    await world.machine.settle();
    await world.start();
    assert.is(await world.imageByte(), undefined);
  }, HANG_OPTIONS));

test("a disk without room for the record of a take loses the existing one, and the take is undone", () =>
  within(async (world) => {
    await world.attach();
    const { disksFs, files } = world.machine;
    const id = await failTake(world, () => {
      disksFs.medium.fault = ({ kind, isDurable }) =>
        kind === "write" && !isDurable ? { errno: ENOSPC } : undefined;
    });
    const kept = files
      .readdir("/var/lib/blksnap")
      .filter((name) => /^area-|^snapshot-.*\.record$/.test(name));
    assert.equal(kept, []);
    disksFs.medium.fault = undefined;
    await world.run(world.driver.snapshotTake(id));
    await world.write();
    await world.reboot();
    assert.is(await world.imageByte(), 0);
  }, HANG_OPTIONS));

test("a disk that works again: the daemon stops, whatever failed there before", () =>
  within(async (world) => {
    await world.attach();
    const other = "/dev/sdb";
    world.machine.addDisk("sdb", { sizeBytes: DISK_BYTES });
    await world.run(world.driver.attach(other, { persistent: true }));
    const id = await world.create(true);
    const heal = makeReadOnly(world);
    assert.is(
      await codeOf(world, world.driver.snapshotAdd(id, other)),
      "PERSISTENT_STATE_UNUSABLE",
    );
    await world.machine.sleep(1000);
    heal();
    assert.equal(await world.run(world.driver.stop()), []);
  }, HANG_OPTIONS));

test.run();
