/**
 * The journal of a persistent tracker does not answer, and its users continue without it. What it has by then is not
 * the truth any more: no later daemon and no later boot takes it for that.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { DEVICE, type World, within } from "./tracking-world.js";

const FORGOTTEN_MS = 10_000;

/** Its medium hangs, and a user writes: the journal is given up. */
async function failJournal(world: World): Promise<void> {
  const { medium } = world.machine.disksFs;
  medium.fault = ({ kind }) => (kind === "allocate" ? undefined : { hangs: true });
  await world.write();
  const { trackers } = await world.run(world.driver.status());
  assert.equal(
    trackers.map(({ persistence }) => persistence.state),
    ["failed"],
  );
  assert.match(trackers[0]?.persistence.why ?? "", /would miss writes/);
}

function answerAgain({ machine }: World): void {
  machine.disksFs.medium.fault = undefined;
  machine.disksFs.medium.release();
}

test("once the medium answers, nothing is left of it: the next boot begins anew", () =>
  within(async (world) => {
    await world.attach();
    const backup = await world.backup();
    await failJournal(world);
    answerAgain(world);
    await world.machine.sleep(FORGOTTEN_MS);
    const { trackers } = await world.run(world.driver.status());
    assert.not.match(trackers[0]?.persistence.why ?? "", /would miss writes/);
    await world.reboot();
    assert.is(await world.verdict(backup), "anew");
  }, HANG_OPTIONS));

for (const isTaken of [false, true]) {
  const meanwhile = isTaken ? "after another take" : "at once";
  test(`a daemon that dies ${meanwhile}: the next one keeps the map from the start, and misses nothing`, () =>
    within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await failJournal(world);
      // Its record in the state directory is written anew.
      if (isTaken) await world.take(false, "memory:");
      world.kill();
      answerAgain(world);
      await world.machine.settle();
      await world.start();
      await world.assertServes();
      await world.reboot();
      assert.is(await world.verdict(backup), "continues");
      assert.is((await world.run(world.driver.trackerStatus(DEVICE))).persistence.state, "on");
    }, HANG_OPTIONS));
}

test.run();
