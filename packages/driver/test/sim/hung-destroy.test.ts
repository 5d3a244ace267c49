/**
 * A persistent snapshot is to be destroyed while the disk of its journals does not answer. As long as a power cut could
 * restore it from there, copies continue.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { DISK_BYTES } from "./settings.js";
import { type World, within } from "./tracking-world.js";

/** On a disk of its own. */
const STORE = "/dev/mapper/store";

async function takeOf(world: World): Promise<string> {
  world.machine.addDisk("sds", { sizeBytes: 2 * DISK_BYTES });
  nameStore(world);
  await world.attach();
  return world.take(true, STORE);
}

function nameStore({ machine }: World): void {
  machine.files.symlink("/dev/sds", STORE);
}

async function cutPower(world: World): Promise<void> {
  world.machine.cut();
  answerAgain(world);
  await world.machine.settle();
  nameStore(world);
  await world.start();
}

function hang({ machine }: World): void {
  machine.disksFs.medium.fault = () => ({ hangs: true });
  machine.disksFs.medium.callHangs = () => true;
}

function answerAgain({ machine }: World): void {
  machine.disksFs.medium.fault = undefined;
  machine.disksFs.medium.callHangs = undefined;
  machine.disksFs.medium.release();
}

function destroy(world: World, id: string): Promise<string> {
  const destroying = world.driver.snapshotDestroy(id).then(
    () => "destroyed",
    ({ code }: { code: string }) => code,
  );
  return world.run(destroying);
}

test("a destroy is refused, and everything is as before", () =>
  within(async (world) => {
    const id = await takeOf(world);
    hang(world);
    assert.is(await destroy(world, id), "PERSISTENT_STATE_UNUSABLE");
    answerAgain(world);
    await world.write();
    assert.is(await world.imageByte(), 0, "copies continue");
    await cutPower(world);
    assert.is(await world.imageByte(), 0);
    assert.is(await destroy(world, id), "destroyed");
    await cutPower(world);
    assert.is(await world.imageByte(), undefined);
  }, HANG_OPTIONS));

for (const when of ["at once", "when it is asked for again"]) {
  test(`the power is cut before the disk answers, ${when}: the restored image is right`, () =>
    within(async (world) => {
      const id = await takeOf(world);
      hang(world);
      let ended = await destroy(world, id);
      if (when !== "at once") ended = await destroy(world, id);
      // Otherwise what is written without copies would be in the image.
      if (ended === "destroyed") await world.write();
      await cutPower(world);
      assert.ok([0, undefined].includes(await world.imageByte()), "a wrong image");
      assert.is(ended, "PERSISTENT_STATE_UNUSABLE");
    }, HANG_OPTIONS));
}

test.run();
