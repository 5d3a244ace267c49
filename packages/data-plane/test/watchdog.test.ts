import { eventually } from "@blksnap/testing";
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ReactorPool, type StartReactor, startReactorThread } from "../dist/pool.js";
import { Watchdog } from "../dist/watchdog.js";

/** A reactor whose thread the test controls, and a clock. */
function world() {
  const said: string[] = [];
  const log = (_: object, text: string) => void said.push(text);
  const reactor = {
    index: 3,
    devices: 1,
    turns: 0,
    wakes: 0,
    hangs: false,
    wake(): void {
      this.wakes++;
      if (!this.hangs) this.turns++;
    },
  };
  const clock = { ms: 0 };
  const logger = { error: log, warn: log };
  const watchdog = new Watchdog([reactor], logger, () => clock.ms);
  const pass = (ms: number): void => {
    for (const end = clock.ms + ms; clock.ms < end; ) {
      clock.ms += 250;
      watchdog.check();
    }
  };
  return { reactor, clock, watchdog, pass, said };
}

test("an idle reactor is woken now and then, and answers", () => {
  const { reactor, pass, said, watchdog } = world();
  pass(10_000);
  assert.is(reactor.wakes, 20);
  assert.equal(said, []);
  assert.equal(watchdog.states, [{ index: 3, devices: 1, turns: 20, stalledMs: 0, stalls: 0 }]);
});

test("a busy reactor, and one without devices, is left alone", () => {
  const { reactor, pass, said } = world();
  for (let i = 0; i < 40; i++) {
    reactor.turns++;
    pass(250);
  }
  reactor.devices = 0;
  reactor.hangs = true;
  pass(10_000);
  assert.is(reactor.wakes, 0);
  assert.equal(said, []);
});

test("a reactor that hangs is reported once, and again when it continues", () => {
  const { reactor, pass, said, watchdog } = world();
  reactor.hangs = true;
  pass(1_000);
  assert.equal(said, []);
  pass(5_000);
  assert.is(said.length, 1);
  assert.match(said[0], /^reactor 3 has not turned for a second/);
  assert.equal(watchdog.states, [{ index: 3, devices: 1, turns: 0, stalledMs: 5750, stalls: 1 }]);
  reactor.hangs = false;
  reactor.turns++;
  pass(250);
  assert.match(said[1], /^reactor 3 turns again/);
  assert.equal(watchdog.states, [{ index: 3, devices: 1, turns: 1, stalledMs: 0, stalls: 1 }]);
});

test("a main thread that is late reports no reactor", () => {
  const { clock, pass, said, watchdog } = world();
  pass(250);
  clock.ms += 60_000;
  watchdog.check();
  clock.ms += 60_000;
  watchdog.check();
  assert.equal(said, []);
});

test("a real reactor turns when it is woken, and only then", async () => {
  const logger = pino({ level: "silent" });
  let wakes = 0;
  const startReactor: StartReactor = (...start) => {
    const thread = startReactorThread(...start);
    const wake = (): void => {
      wakes++;
      thread.wake();
    };
    return { post: (message) => thread.post(message), wake, stop: (last) => thread.stop(last) };
  };
  const pool = new ReactorPool({
    reactors: 1,
    frontDepth: 1,
    ioTimeoutMs: 10_000,
    imageDepth: 1,
    logger,
    onNotice: () => undefined,
    onLost: () => undefined,
    startReactor,
  });
  await pool.ready();
  pool.assign();
  const turnsOf = () => pool.states[0]?.turns ?? 0;
  await eventually("it turns", () => turnsOf() >= 3 && wakes >= 3);
  // At most one turn to begin with and one per wake-up: it does not spin.
  const [turns, woken] = [turnsOf(), wakes];
  assert.ok(turns <= woken + 1, `${turns} turns for ${woken} wake-ups`);
  pool.release(0);
  await pool.stop();
});

test.run();
