/** Ticks for I/O in flight continue, even if one of their receivers throws. */
import type { DiffArea } from "@blksnap/engine";
import type { Timer } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AreaTicker } from "../dist/area-ticker.js";
import { IoTicker } from "../dist/io-ticker.js";

/** Timers that the test ends. */
class Timers {
  #callbacks: (() => void)[] = [];

  setTimer = (_delayMs: number, callback: () => void): Timer => {
    this.#callbacks.push(callback);
    return { callback };
  };

  get count(): number {
    return this.#callbacks.length;
  }

  fire(): void {
    for (const callback of this.#callbacks.splice(0)) callback();
  }
}

test("a device that throws at a tick loses no tick, and neither do others", () => {
  const timers = new Timers();
  const ticker = new IoTicker(timers, 8_000);
  const ticked: string[] = [];
  let isBroken = true;
  const add = (name: string, tick: () => boolean): void => {
    const tickIo = (): boolean => {
      ticked.push(name);
      return tick();
    };
    ticker.add({ tickIo });
  };
  add("broken", () => {
    if (isBroken) throw new Error("it cannot be told");
    return false;
  });
  add("other", () => false);
  ticker.start();
  assert.throws(() => timers.fire(), /it cannot be told/);
  assert.equal(ticked.splice(0), ["broken", "other"]);
  assert.is(timers.count, 1);
  isBroken = false;
  timers.fire();
  assert.equal(ticked, ["broken", "other"]);
  assert.is(timers.count, 0, "nothing is in flight");
});

test("writes wait for room for a bounded time, even if a tick throws", () => {
  const timers = new Timers();
  let ticks = 0;
  const area = {
    blockedWrites: 1,
    tick: () => {
      ticks++;
      if (ticks === 1) throw new Error("one of them cannot be answered");
      area.blockedWrites = 0;
    },
  };
  const ticker = new AreaTicker(timers, 100);
  assert.ok(ticker.start(area as unknown as DiffArea));
  assert.throws(() => timers.fire(), /cannot be answered/);
  timers.fire();
  assert.is(ticks, 2);
  assert.is(timers.count, 0);
  // The next wait starts a new timer.
  assert.ok(ticker.start(area as unknown as DiffArea));
});

test.run();
