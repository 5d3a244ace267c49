/**
 * A daemon that is killed at any step of an attach, a detach or a stop of a persistent tracker, and a front that
 * another program deletes: others may write to the original from then on, and no later boot takes the map for one that
 * was kept to the end. If the front existed to the end, the map continues.
 */
import type { FaultPoint } from "@blksnap/data-plane";
import { Errno, SystemError } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FAULT_POINTS } from "./load.js";
import { DEVICE, type World, within } from "./tracking-world.js";

const AREA_JOURNAL = /^\/var\/lib\/.*\/area-[^/]*\.journal$/;
const POINTS = FAULT_POINTS.filter((name) => /^(attach|detach)\./.test(name));

type Operation = "attach" | "detach" | "stop";

/** @returns whether the daemon reached that point, and was killed there */
async function interrupt(world: World, operation: Operation, point: FaultPoint): Promise<boolean> {
  const { driver } = world;
  if (operation === "detach") return world.dieAt(point, () => driver.detach(DEVICE));
  if (operation === "stop") return world.dieAt(point, () => driver.stop());
  return world.dieAt(point, () => driver.attach(DEVICE, { persistent: true }));
}

for (const operation of ["attach", "detach", "stop"] as const) {
  for (const next of ["the next daemon", "no daemon"]) {
    test(`after a kill at each step of ${operation}, then ${next}, no write is missed`, () =>
      eachPoint(operation, next === "the next daemon"));
  }
}

async function eachPoint(operation: Operation, isFollowed: boolean): Promise<void> {
  let killed = 0;
  let written = 0;
  const prefix = operation === "attach" ? "attach." : "detach.";
  for (const point of POINTS.filter((name) => name.startsWith(prefix))) {
    await within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      if (operation === "attach") await world.run(world.driver.detach(DEVICE));
      if (!(await interrupt(world, operation, point))) return;
      killed++;
      if (isFollowed) await world.start();
      if (!world.mayWrite) return;
      written++;
      await world.write();
      await world.reboot();
      assert.is.not(await world.verdict(backup), "missed", point);
    });
  }
  assert.ok(killed >= 5, `${killed} points`);
  assert.ok(written >= 3, `written after ${written}`);
}

test("a front that is deleted while no daemon runs ends with the next one", () =>
  within(async (world) => {
    await world.attach();
    const backup = await world.backup();
    world.kill();
    await world.machine.settle();
    await world.deleteFront();
    // Before a daemon runs again.
    await world.write();
    await world.start();
    await world.reboot();
    assert.is(await world.verdict(backup), "anew");
  }));

for (const persistent of [false, true]) {
  const kind = persistent ? "persistent" : "taken";
  test(`the same for a tracker in a ${kind} snapshot`, () =>
    within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.take(persistent);
      world.kill();
      await world.machine.settle();
      await world.deleteFront();
      await world.write();
      await world.start();
      await world.assertServes();
      await world.reboot();
      for (const { id } of await world.run(world.driver.snapshotCollect())) {
        await world.run(world.driver.snapshotDestroy(id));
      }
      assert.is(await world.verdict(backup), "anew");
    }));
}

test("killed while a reboot's devices are attached again: those of a taken snapshot are attached, too", () =>
  within(async (world) => {
    await world.attach();
    await world.take(true);
    await world.write();
    world.kill();
    world.machine.cut();
    await world.machine.settle();
    // Its front is on record, and never existed.
    assert.ok(await world.dieAt("attach.queue-started", () => world.begin()));
    await world.start();
    await world.assertServes();
  }));

test("a device whose lost image cannot be removed from the medium gets no front before the next start", () =>
  within(async (world) => {
    await world.attach();
    await world.take(true);
    world.kill();
    await world.machine.settle();
    await world.deleteFront();
    const { files } = world.machine;
    const unlink = files.unlink.bind(files);
    let refusals = 0;
    files.unlink = (path) => {
      if (!AREA_JOURNAL.test(path)) return unlink(path);
      refusals++;
      throw new SystemError(Errno.EIO, "unlink", path);
    };
    await world.start();
    assert.ok(refusals > 0);
    const { trackers, waiting } = await world.run(world.driver.status());
    assert.equal([trackers, waiting], [[], []], "its writes would make no copies");
    files.unlink = unlink;
    world.kill();
    await world.machine.settle();
    await world.start();
    await world.assertServes();
  }));

test("if a front is deleted while the daemon runs, neither a power cut nor a detach hides missed writes", async () => {
  for (const isDetached of [false, true]) {
    await within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.deleteFront();
      await world.write();
      if (isDetached) {
        await world.run(world.driver.detach(DEVICE));
        await world.attach();
        assert.is(await world.verdict(backup), "anew");
        return;
      }
      await world.reboot();
      assert.is(await world.verdict(backup), "anew");
    });
  }
});

test("a front that existed to the end of its boot: the map continues", async () => {
  for (const daemon of ["lives", "was killed", "was followed"]) {
    await within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.write();
      if (daemon !== "lives") world.kill();
      await world.machine.settle();
      if (daemon === "was followed") await world.start();
      await world.reboot();
      assert.is(await world.verdict(backup), "continues", daemon);
    });
  }
});

test("the next daemon attaches the device after a kill during a stop, but not during a detach", async () => {
  for (const operation of ["stop", "detach"] as const) {
    await within(async (world) => {
      await world.attach();
      assert.ok(await interrupt(world, operation, "detach.front-stopped"));
      await world.start();
      const { trackers, waiting } = await world.run(world.driver.status());
      assert.equal(waiting, []);
      const told = trackers.map((one) => [one.device, one.front_live, one.persistence.state]);
      assert.equal(told, operation === "stop" ? [[DEVICE, true, "on"]] : []);
    });
  }
});

test.run();
