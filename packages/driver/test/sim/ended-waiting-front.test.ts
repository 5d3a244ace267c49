/** A front whose original is away waits; another program deletes it. The end of tracking comes on record then, too. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { within } from "./tracking-world.js";

/** Some attempts to serve it. */
const WHILE_MS = 20_000;

test("a front that is deleted while it waits: what is written past it is in the next backup", () =>
  within(async (world) => {
    await world.attach();
    const backup = await world.backup();
    world.kill();
    await world.machine.settle();
    world.machine.removeBlockDevice(world.disk);
    await world.start();
    const waiting = async () => (await world.run(world.driver.status())).waiting.length;
    assert.is(await waiting(), 1);
    await world.deleteFront();
    await world.machine.sleep(WHILE_MS);
    assert.is(await waiting(), 0);
    world.machine.addBlockDevice(world.disk);
    await world.write();
    await world.reboot();
    assert.is(await world.verdict(backup), "anew");
  }));

test.run();
