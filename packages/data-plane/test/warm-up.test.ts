import { readdirSync, readFileSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { createEventFd, prepareNop, Reactor } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { WarmUp } from "../dist/warm-up.js";

const test = suite("warm-up");
const channel = new MessageChannel();
const settings = {
  index: 0,
  imageDepth: 1,
  ioTimeoutMs: 10_000_000,
  ringEntries: 256,
  heartbeat: new SharedArrayBuffer(4),
};
const errors: unknown[] = [];
const reactor = new Reactor({
  wakeFd: createEventFd(),
  port: channel.port2,
  onMessage: () => undefined,
  onError: (error) => errors.push(error),
});

/** Descriptors and mappings of this process, without what V8 and its threads have. */
function held(): { files: number; mappings: string[] } {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  const ours = maps.filter((line) => /memfd|io_uring|ublkc/.test(line));
  return { files: readdirSync("/proc/self/fd").length, mappings: ours };
}

function run(zeroCopy: boolean, eachTurn: () => void = () => undefined): { turns: number } {
  let turns = 0;
  let isEnded = false;
  WarmUp.start(reactor, settings, zeroCopy, (failure) => {
    assert.is(failure, undefined);
    isEnded = true;
  });
  for (; !isEnded; turns++) {
    eachTurn();
    reactor.turn();
  }
  return { turns };
}

for (const zeroCopy of [false, true]) {
  test(`zero copy ${zeroCopy}: serves requests of each kind and leaves nothing`, () => {
    run(zeroCopy);
    const before = held();
    const { turns } = run(zeroCopy);
    assert.equal(held(), before);
    assert.equal(errors, []);
    assert.ok(turns > 50, `all in ${turns} turns`);
  });
}

test("a reactor that is busy is left alone, until its own requests have done the work", () => {
  const handler = reactor.addHandler({ onCompletion: () => undefined });
  const before = reactor.completions;
  const { turns } = run(false, () => prepareNop(reactor.ring, 0, handler, 0));
  // Each turn has a completion of the handler; the others are those of the warm-up and of its pauses.
  const own = reactor.completions - before - turns;
  assert.ok(own > 0 && own < 300, `${own} turns of the warm-up among ${turns}`);
});

test.run();
