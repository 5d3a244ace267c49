import type { Timer } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { WriteHold } from "../dist/write-hold.js";

const DEADLINE_MS = 10_000;

/** A clock that the test advances, and an engine that holds. */
function world() {
  const timers = new Set<Timer>();
  const reactor = {
    setTimer(delayMs: number, callback: () => void): Timer {
      assert.is(delayMs, DEADLINE_MS);
      const timer = { callback };
      timers.add(timer);
      return timer;
    },
    cancelTimer: (timer: Timer) => void timers.delete(timer),
  };
  const engine = {
    isHolding: false,
    failure: undefined as Error | undefined,
    hold() {
      this.isHolding = true;
    },
    release() {
      this.isHolding = false;
      if (this.failure !== undefined) throw this.failure;
    },
    switchAndRelease() {
      if (this.failure?.message === "not drained") throw this.failure;
      this.release();
    },
  };
  const expire = (): void => {
    for (const timer of [...timers]) {
      timers.delete(timer);
      timer.callback?.();
    }
  };
  return { hold: new WriteHold(reactor, engine), engine, timers, expire };
}

const nothing = (): void => undefined;

test("any number of takes leaves no timer behind", () => {
  const { hold, timers, engine } = world();
  for (let i = 0; i < 1000; i++) {
    hold.begin(DEADLINE_MS, nothing, nothing);
    assert.is(timers.size, 1);
    if (i % 2 === 0) assert.ok(hold.switchAndRelease() >= 0);
    else hold.release();
    assert.is(timers.size, 0);
    assert.not(hold.isActive);
    assert.not(engine.isHolding);
  }
});

test("a hold that is never released expires, and is reported once", () => {
  const { hold, engine, expire } = world();
  const told: string[] = [];
  hold.begin(DEADLINE_MS, nothing, () => told.push("expired"));
  expire();
  assert.not(hold.isActive);
  assert.not(engine.isHolding);
  hold.release();
  expire();
  assert.equal(told, ["expired"]);
});

test("an expiry is reported even if one of the held writes throws", () => {
  const { hold, engine, expire } = world();
  let reports = 0;
  engine.failure = new Error("after the release");
  hold.begin(DEADLINE_MS, nothing, () => reports++);
  assert.throws(() => expire(), "after the release");
  assert.is(reports, 1);
});

test("a hold ends if its release throws, and continues if its switch throws", () => {
  const { hold, engine, timers } = world();
  engine.failure = new Error("after the release");
  hold.begin(DEADLINE_MS, nothing, nothing);
  assert.throws(() => hold.release(), "after the release");
  assert.not(hold.isActive);
  assert.is(timers.size, 0);
  engine.failure = new Error("not drained");
  hold.begin(DEADLINE_MS, nothing, nothing);
  assert.throws(() => hold.switchAndRelease(), "not drained");
  assert.ok(hold.isActive);
  assert.is(timers.size, 1);
  engine.failure = undefined;
  hold.release();
  assert.is(timers.size, 0);
});

test("a second hold is refused, and does not disturb the first", () => {
  const { hold, engine, timers } = world();
  let drained = 0;
  hold.begin(DEADLINE_MS, () => drained++, nothing);
  assert.throws(() => hold.begin(DEADLINE_MS, nothing, nothing), "held already");
  assert.ok(engine.isHolding);
  assert.is(timers.size, 1);
  hold.drained();
  hold.drained();
  assert.is(drained, 1);
  hold.release();
});

test.run();
