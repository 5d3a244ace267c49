/** Which results of the ring are not a request's answer, and how often it is tried. */
import type { Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SecondTries } from "../dist/second-tries.js";

const EIO = 5;
const EAGAIN = 11;
const ENOMEM = 12;
const ECANCELED = 125;
const TRIES_MS = 10_000;

class World {
  readonly submitted: number[] = [];
  readonly tries: SecondTries;
  /** Of this tag nothing can be submitted. */
  broken: number | undefined;
  waitedMs = 0;
  #timers: { readonly delayMs: number; readonly callback: () => void }[] = [];

  constructor(isSeries = false) {
    const setTimer = (delayMs: number, callback: () => void): object => {
      const timer = { delayMs, callback };
      this.#timers.push(timer);
      return timer;
    };
    const cancelTimer = (timer: object): void => {
      this.#timers = this.#timers.filter((one) => one !== timer);
    };
    const reactor = { setTimer, cancelTimer } as unknown as Reactor;
    const submit = (tag: number): void => {
      if (tag === this.broken) throw new Error("broken");
      this.submitted.push(tag);
    };
    this.tries = new SecondTries(reactor, 4, submit, { isSeries });
  }

  get timers(): number {
    return this.#timers.length;
  }

  pass(): void {
    for (const { delayMs, callback } of this.#timers.splice(0)) {
      this.waitedMs += delayMs;
      callback();
    }
  }
}

test("requests without memory or thread in the ring are submitted again, after a common pause", () => {
  const world = new World();
  assert.not(world.tries.tryAgain(0, -EIO));
  assert.is(world.timers, 0);
  assert.ok(world.tries.tryAgain(1, -ENOMEM));
  assert.ok(world.tries.tryAgain(3, -ECANCELED));
  assert.equal(world.submitted, []);
  assert.is(world.timers, 1);
  world.pass();
  assert.equal(world.submitted, [1, 3]);
  assert.is(world.timers, 0);
  assert.ok(world.tries.tryAgain(3, -EAGAIN));
  world.pass();
  assert.equal(world.submitted, [1, 3, 3]);
});

test("a request fails when its time has passed; the next one of its tag has its own time", () => {
  const world = new World();
  world.tries.begin(2);
  let tries = 0;
  for (; world.tries.tryAgain(2, -ENOMEM); tries++) world.pass();
  assert.is(world.submitted.length, tries);
  assert.is(world.waitedMs, TRIES_MS);
  world.tries.begin(2);
  assert.ok(world.tries.tryAgain(2, -ENOMEM));
  world.tries.close();
  assert.is(world.timers, 0);
});

test("a request that cannot be submitted is reported, and the others are submitted nevertheless", () => {
  const world = new World();
  for (const tag of [0, 1, 2]) world.tries.tryAgain(tag, -ENOMEM);
  world.broken = 1;
  assert.throws(() => world.pass(), /broken/);
  assert.equal(world.submitted, [0, 2]);
  assert.is(world.timers, 0);
});

test("after one of a series has failed, later ones are not retried until one completes", () => {
  for (const answer of [0, -EIO]) {
    const world = new World(true);
    const outlast = (tag: number): void => {
      world.tries.begin(tag);
      world.waitedMs = 0;
      while (world.tries.tryAgain(tag, -ENOMEM)) world.pass();
    };
    world.tries.begin(0);
    outlast(2);
    assert.is(world.waitedMs, TRIES_MS);
    for (const tag of [2, 3]) {
      outlast(tag);
      assert.is(world.waitedMs, 0);
    }
    // It has begun before.
    assert.ok(world.tries.tryAgain(0, -ENOMEM));
    assert.not(world.tries.tryAgain(3, answer));
    outlast(1);
    assert.is(world.waitedMs, TRIES_MS);
  }
});

test.run();
