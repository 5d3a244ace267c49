/**
 * The journal of a persistent tracker does not answer, and its users continue without it. What it has by then is not
 * the truth any more: no later daemon and no later boot takes it for that.
 */
import { Errno } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { DEVICE, keepLastingNames, type World, within } from "./tracking-world.js";

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

/** Nothing that is to be durable is: the journals of a tracker and of its area are given up, and copies are not. */
async function failCommits(world: World): Promise<void> {
  world.machine.disksFs.medium.fault = ({ kind, isDurable }) =>
    kind === "sync" || isDurable ? { hangs: true } : undefined;
  await world.write();
  const { snapshots } = await world.run(world.driver.status());
  assert.equal(
    snapshots.map(({ persistent }) => persistent),
    [false],
  );
}

/** The snapshot is there, and the only one, and does not outlive the machine's power. */
async function assertNotKept(world: World, id: string): Promise<void> {
  const { snapshots } = await world.run(world.driver.status());
  assert.equal(
    snapshots.map((one) => [one.id, one.persistent]),
    [[id, false]],
  );
}

/** The medium removes no record of a snapshot. @returns ends that */
function refuseRemovals({ machine }: World): () => void {
  const { files } = machine;
  const unlink = files.unlink.bind(files);
  files.unlink = (path) => {
    if (path.startsWith("/var/lib/blksnap/snapshot-"))
      throw Object.assign(new Error("EIO: i/o error"), { code: "EIO", errno: -5 });
    // As if its process died before: with the store a snapshot could come back.
    if (!path.startsWith("/var/tmp/")) unlink(path);
  };
  return () => {
    files.unlink = unlink;
  };
}

test("a snapshot that was given up goes as soon as the medium lets it, and no later boot brings it back", () =>
  within(async (world) => {
    await world.attach();
    const id = await world.take(true);
    const allowRemovals = refuseRemovals(world);
    await failCommits(world);
    world.kill();
    answerAgain(world);
    await world.machine.settle();
    await world.start();
    await assertNotKept(world, id);
    allowRemovals();
    await world.machine.sleep(FORGOTTEN_MS);
    await world.reboot();
    assert.equal(await world.run(world.driver.snapshotCollect()), []);
  }, HANG_OPTIONS));

for (const isDestroyed of [true, false]) {
  const what = isDestroyed ? "was given up and destroyed" : "was lost";
  test(`a snapshot that ${what} while the medium fails does not come back with the next daemon`, () =>
    within(async (world) => {
      await world.attach();
      const id = await world.take(true);
      const allowRemovals = refuseRemovals(world);
      if (isDestroyed) await failCommits(world);
      world.kill();
      answerAgain(world);
      await world.machine.settle();
      const { files } = world.machine;
      const open = files.open.bind(files);
      if (!isDestroyed)
        files.open = (path, ...rest) => {
          if (path.startsWith("/var/tmp/")) throw Object.assign(new Error("EIO"), { code: "EIO" });
          return open(path, ...rest);
        };
      await world.start();
      files.open = open;
      if (isDestroyed) await world.run(world.driver.snapshotDestroy(id));
      assert.equal(await world.run(world.driver.snapshotCollect()), []);
      world.kill();
      await world.machine.settle();
      await world.start();
      assert.equal(await world.run(world.driver.snapshotCollect()), []);
      allowRemovals();
      await world.machine.sleep(FORGOTTEN_MS);
      await world.reboot();
      assert.equal(await world.run(world.driver.snapshotCollect()), []);
      assert.equal(
        world.machine.files.readdir("/var/lib/blksnap").filter((name) => name.startsWith("snap")),
        [],
      );
    }, HANG_OPTIONS));
}

test("a snapshot that was given up has no store any more for the record that the medium keeps", () =>
  within(async (world) => {
    await world.attach();
    const id = await world.take(true);
    const { disksFs, files } = world.machine;
    const removeAgain = keepLastingNames(world, Errno.EIO);
    disksFs.medium.fault = ({ isDurable }) => (isDurable ? { errno: 5 } : undefined);
    await world.write();
    disksFs.medium.fault = undefined;
    assert.is(await world.imageByte(), 0);
    // The next daemon has the store by its new name.
    world.kill();
    await world.machine.settle();
    await world.start();
    await assertNotKept(world, id);
    assert.is(await world.imageByte(), 0);
    world.machine.cut();
    removeAgain();
    await world.machine.settle();
    await world.start();
    assert.is(await world.imageByte(), undefined);
    assert.equal(files.readdir("/var/tmp"), [], "what was its store is removed");
  }, HANG_OPTIONS));

test.run();
