/**
 * A reactor that answers a growth after its caller has given up: it has the new map and the new journal, and the main
 * thread has the old ones. No backup misses a write, whatever comes next.
 */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { replace } from "./planted-faults.js";
import { DISK_BYTES } from "./settings.js";
import { DEVICE, type World, within } from "./tracking-world.js";

const { NoAnswerError, ReactorPool } = await import("@blksnap/data-plane");

/** Bits up to those of Linux 6.16, which can resize devices. */
const KERNEL = { ublkFeatures: 0x7ff };
const GROWN_BYTES = DISK_BYTES + 3 * 65_536;
const BEHIND = GROWN_BYTES - 4096;
/** Two looks, and attempts. */
const WHILE_MS = 5000;
/** The longest until the next attempt. */
const AGAIN_MS = 60_000;

/** Growths are carried out, and their answers are lost. @returns function that ends that */
function loseAnswers(): () => void {
  return replace(ReactorPool.prototype, "request", (original) => {
    return async function (this: unknown, ...words: never[]): Promise<unknown> {
      const { type } = words[1] as { type: string };
      const answer = await original.apply(this, words);
      if (type !== "grow") return answer;
      throw new NoAnswerError("reactor 0 did not answer", true);
    };
  });
}

type Next = (world: World) => Promise<unknown>;

const NEXT: Readonly<Record<string, Next>> = {
  "another attempt": (world) => world.machine.sleep(AGAIN_MS),
  "a take": async (world) => world.run(world.driver.snapshotDestroy(await world.take())),
  "a kill": async (world) => {
    world.kill();
    await world.machine.settle();
    await world.start();
  },
  "a power cut": (world) => world.reboot(),
  "a detach": async (world) => {
    await world.run(world.driver.detach(DEVICE));
    await world.attach();
  },
};

for (const [what, next] of Object.entries(NEXT)) {
  test(`${what} after a growth whose answer was lost: nothing is missed, and the front grows`, () => {
    const restore = loseAnswers();
    return within(
      async (world) => {
        await world.attach();
        const backup = await world.backup();
        world.disk.grow(GROWN_BYTES);
        await world.machine.sleep(WHILE_MS);
        const [tracker] = (await world.run(world.driver.status())).trackers;
        assert.is(tracker?.capacity_bytes, DISK_BYTES);
        assert.match(tracker?.capacity_why ?? "", /reactor 0 did not answer/);
        await world.write();
        restore();
        await next(world);
        assert.is(await world.verdict(backup), "anew");
        await world.machine.sleep(WHILE_MS);
        await world.assertServes();
        const later = await world.backup();
        await world.write(BEHIND);
        assert.is(world.disk.bytes[BEHIND], 7);
        assert.is(await world.verdict(later, BEHIND), "continues");
      },
      {},
      KERNEL,
    ).finally(restore);
  });
}

test.run();
