/**
 * A daemon that is killed between its two records of a change, in memory and on the medium: what the next one shows of
 * it, a power cut does not undo.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DEVICE, type World, within } from "./tracking-world.js";

/** A power cut may keep what was not synced. */
const SEEDS = [1, 2, 3, 4];
const ON_MEDIUM = /^\/var\/lib\/blksnap\/snapshot-[^.]*\.record$/;

/** The daemon is killed when it is about to replace a snapshot's record on the medium by one with this text. */
async function killedBeforeMedium(
  world: World,
  text: string,
  work: () => Promise<unknown>,
): Promise<void> {
  const { files } = world.machine;
  const rename = files.rename.bind(files);
  files.rename = (from, to) => {
    const isMeant = (): boolean => Buffer.from(files.readFile(from)).includes(text);
    if (ON_MEDIUM.test(to) && isMeant()) world.machine.die();
    rename(from, to);
  };
  await world.killed(work);
  files.rename = rename;
}

async function shown(world: World) {
  const [snapshot] = (await world.run(world.driver.status())).snapshots;
  const devices = snapshot?.devices.map(({ device, image }) => [device, image !== null]);
  return { taken: snapshot?.taken, devices };
}

async function assertLasts(world: World, taken: boolean): Promise<void> {
  await world.start();
  const found = await shown(world);
  assert.equal(found, { taken, devices: [[DEVICE, taken]] }, "the next daemon shows it");
  await world.reboot();
  assert.equal(await shown(world), found);
}

for (const seed of SEEDS) {
  test(`a device that was being added, seed ${seed}`, () =>
    within(
      async (world) => {
        await world.attach();
        const id = await world.create(true, "/var/tmp", []);
        await killedBeforeMedium(world, '"tracker":', () => world.driver.snapshotAdd(id, DEVICE));
        await assertLasts(world, false);
      },
      {},
      { seed },
    ));

  test(`a snapshot that was being taken, seed ${seed}`, () =>
    within(
      async (world) => {
        await world.attach();
        await world.write();
        const id = await world.create(true);
        const take = () => world.driver.snapshotTake(id);
        await killedBeforeMedium(world, '"state":"taken"', take);
        await assertLasts(world, true);
        assert.is(await world.imageByte(), 7);
      },
      {},
      { seed },
    ));
}

test.run();
