/** What a detach does about the last writes to a front. */
import { EIO } from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FRONT_SYNC_TIMEOUT_MS } from "../../dist/time-limits.js";
import { FrontFlush } from "../../dist/tracker/front-flush.js";

type Answer = (status: number | Error) => void;

/** A front whose syncs end when the test says so; timers of the limit end when they are told to. */
class World {
  readonly logged: string[] = [];
  readonly #answers: Answer[] = [];
  readonly #late: (() => void)[] = [];
  readonly #setTimeout = globalThis.setTimeout;
  syncs = 0;
  capacityBytes = 1;
  readonly flush: FrontFlush;

  constructor() {
    globalThis.setTimeout = ((fire: () => void, ms: number) => {
      if (ms === FRONT_SYNC_TIMEOUT_MS) this.#late.push(fire);
      return this.#setTimeout(fire, ms);
    }) as never;
    const sync = () => {
      this.syncs++;
      return new Promise<number>((resolve, reject) => {
        this.#answers.push((status) =>
          status instanceof Error ? reject(status) : resolve(status),
        );
      });
    };
    const tracker = {
      device: "/dev/sda",
      front: { path: "/dev/ublkb0", sync },
      backing: { fd: 3 },
      presentCapacityBytes: async () => this.capacityBytes,
    };
    const logger = { error: (_: unknown, text: string) => this.logged.push(text) };
    this.flush = new FrontFlush(tracker as never, logger as never);
  }

  /** @returns "" or the code and the hint of the failure */
  run(giveUp = false): Promise<string> {
    return this.flush.run(giveUp).then(
      () => "",
      ({ code, message, hint }) => `${code ?? message}: ${hint}`,
    );
  }

  /** The oldest sync that has not ended. */
  answer(status: number | Error): Promise<void> {
    this.#answers.shift()?.(status);
    return this.settle();
  }

  giveUpWaiting(): Promise<void> {
    for (const fire of this.#late.splice(0)) fire();
    return this.settle();
  }

  settle(): Promise<void> {
    return new Promise((resolve) => this.#setTimeout(resolve, 0));
  }

  end(): void {
    globalThis.setTimeout = this.#setTimeout;
  }
}

async function within(body: (world: World) => Promise<void>): Promise<void> {
  const world = new World();
  try {
    await body(world);
  } finally {
    world.end();
  }
}

const LATE = "NO_ANSWER: They continue, and it stays attached: see dmesg, and detach it again";
const LOST = "DEVICE_FAILED: See dmesg; another detach gives these writes up";

async function late(world: World): Promise<void> {
  const first = world.run();
  await world.settle();
  await world.giveUpWaiting();
  assert.is(await first, LATE);
}

test("an original that does not answer is reported in time", () => within(late));

test("the next attempt waits for the late sync, and then writes what came after that", () =>
  within(async (world) => {
    await late(world);
    const second = world.run();
    await world.settle();
    assert.is(world.syncs, 1, "a process for each attempt would stay behind");
    await world.answer(0);
    assert.is(world.syncs, 2);
    await world.answer(0);
    assert.is(await second, "");
  }));

test("the next attempt is reported in time, too", () =>
  within(async (world) => {
    await late(world);
    await late(world);
    assert.is(world.syncs, 1);
  }));

test("a failure that came late is reported, although the next sync succeeds", () =>
  within(async (world) => {
    await late(world);
    await world.answer(-EIO);
    const second = world.run();
    await world.settle();
    await world.answer(0);
    assert.is(await second, LOST);
    const third = world.run();
    await world.settle();
    await world.answer(0);
    assert.is(await third, "");
  }));

test("a failure that came late is reported after another sync that is late", () =>
  within(async (world) => {
    await late(world);
    await world.answer(-EIO);
    await late(world);
    const third = world.run();
    await world.settle();
    await world.answer(0);
    await world.answer(0);
    assert.is(await third, LOST);
  }));

test("a sync that could not be made is repeated", () =>
  within(async (world) => {
    const first = world.run();
    await world.settle();
    await world.answer(new Error("no process"));
    assert.match(await first, "no process");
    const second = world.run();
    await world.settle();
    await world.answer(0);
    assert.is(await second, "");
  }));

test("a caller with a limit of its own waits, and gives up what has failed", () =>
  within(async (world) => {
    const run = world.run(true);
    await world.settle();
    await world.giveUpWaiting();
    await world.answer(-EIO);
    assert.is(await run, "");
    assert.is(world.logged.length, 1);
  }));

test("writes to an original that is gone are given up at once", () =>
  within(async (world) => {
    world.capacityBytes = 0;
    const run = world.run();
    await world.settle();
    await world.answer(-EIO);
    assert.is(await run, "");
    assert.is(world.logged.length, 1);
  }));

test.run();
