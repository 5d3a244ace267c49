/**
 * The journal of a persistent tracker does not answer, and its users continue without it. Its content is stale from
 * then on: no later daemon and no later boot trusts it.
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

/** The medium hangs, and a user writes: the journal is given up. */
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

test("once the medium answers, the journal is removed: the next boot begins a new generation", () =>
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
  test(`the next daemon keeps the map from the start and misses nothing if the first dies ${meanwhile}`, () =>
    within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await failJournal(world);
      // Rewrites its record in the state directory.
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

test("a snapshot that was destroyed meanwhile does not return with the next daemon", () =>
  within(async (world) => {
    await world.attach();
    const options = { devices: [DEVICE], stores: ["/var/tmp"], limitBytes: 2 ** 22 };
    const { id } = await world.run(world.driver.snapshotCreate({ ...options, persistent: true }));
    hang(world);
    // As if its process died before: its store stays.
    const { files } = world.machine;
    const unlink = files.unlink.bind(files);
    files.unlink = (path) => path.startsWith("/var/") || unlink(path);
    await world.run(world.driver.snapshotDestroy(id));
    world.kill();
    files.unlink = unlink;
    answerAgain(world);
    await world.machine.settle();
    // Otherwise its device would count as one that no snapshot on the medium can have.
    await world.deleteFront();
    await world.start();
    assert.equal(await world.run(world.driver.snapshotCollect()), []);
    await world.reboot();
    assert.equal(await world.run(world.driver.snapshotCollect()), []);
  }, HANG_OPTIONS));

/** Nothing becomes durable: the journals of a tracker and of its area are given up, and copies are not. */
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

/** The snapshot is the only one, and does not survive a power cut. */
async function assertNotKept(world: World, id: string): Promise<void> {
  const { snapshots } = await world.run(world.driver.status());
  assert.equal(
    snapshots.map((one) => [one.id, one.persistent]),
    [[id, false]],
  );
}

/** The medium removes no record of a snapshot. @returns function that ends that */
function refuseRemovals({ machine }: World): () => void {
  const { files } = machine;
  const unlink = files.unlink.bind(files);
  files.unlink = (path) => {
    if (path.startsWith("/var/lib/blksnap/snapshot-"))
      throw Object.assign(new Error("EIO: i/o error"), { code: "EIO", errno: -5 });
    // As if its process died before: with the store, a snapshot could return.
    if (!path.startsWith("/var/tmp/")) unlink(path);
  };
  return () => {
    files.unlink = unlink;
  };
}

test("a snapshot that was given up is removed as soon as the medium allows it, and no later boot restores it", () =>
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
  test(`a snapshot that ${what} while the medium fails does not return with the next daemon`, () =>
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

test("a snapshot that was given up has no store for the record that the medium keeps", () =>
  within(async (world) => {
    await world.attach();
    const id = await world.take(true);
    const { disksFs, files } = world.machine;
    const removeAgain = keepLastingNames(world, Errno.EIO);
    disksFs.medium.fault = ({ isDurable }) => (isDurable ? { errno: 5 } : undefined);
    await world.write();
    disksFs.medium.fault = undefined;
    assert.is(await world.imageByte(), 0);
    // The next daemon knows the store by its new name.
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
