/**
 * The journal of a persistent tracker does not answer, and its users continue without it. What it has by then is not
 * the truth any more: no later daemon and no later boot takes it for that.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { DEVICE, type World, within } from "./tracking-world.js";

const FORGOTTEN_MS = 10_000;

function hang({ machine }: World): void {
  machine.disksFs.medium.fault = ({ kind }) => (kind === "allocate" ? undefined : { hangs: true });
}

/** Its medium hangs, and a user writes: the journal is given up. */
async function failJournal(world: World): Promise<void> {
  hang(world);
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

test("a snapshot that was destroyed meanwhile does not come back with the next daemon", () =>
  within(async (world) => {
    await world.attach();
    const options = { devices: [DEVICE], stores: ["/var/tmp"], limitBytes: 2 ** 22 };
    const { id } = await world.run(world.driver.snapshotCreate({ ...options, persistent: true }));
    hang(world);
    // Its process dies before: what is there of its store stays.
    const { files } = world.machine;
    const unlink = files.unlink.bind(files);
    files.unlink = (path) => path.startsWith("/var/") || unlink(path);
    await world.run(world.driver.snapshotDestroy(id));
    world.kill();
    files.unlink = unlink;
    answerAgain(world);
    await world.machine.settle();
    // Else its device would count as one that no snapshot of the medium can have.
    await world.deleteFront();
    await world.start();
    assert.equal(await world.run(world.driver.snapshotCollect()), []);
    await world.reboot();
    assert.equal(await world.run(world.driver.snapshotCollect()), []);
  }, HANG_OPTIONS));

test.run();
