import { closeSync, fstatSync, readdirSync, readFileSync, readlinkSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { EPERM } from "@blksnap/errors";
import { DriverStandIn } from "@blksnap/ublk";
import { createEventFd, PAGE_BYTES, prepareNop, Reactor } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import type { FromReactor } from "../dist/messages.js";
import { ReactorServer } from "../dist/reactor-server.js";
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

/** Descriptors and mappings of this process, except those of V8 and its threads. */
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

test("the warm-up leaves a busy reactor alone, until requests of users have compiled the code", () => {
  const handler = reactor.addHandler({ onCompletion: () => undefined });
  const before = reactor.completions;
  const { turns } = run(false, () => prepareNop(reactor.ring, 0, handler, 0));
  // Each turn has a completion of the handler; the others belong to the warm-up and its pauses.
  const own = reactor.completions - before - turns;
  assert.ok(own > 0 && own < 300, `${own} turns of the warm-up among ${turns}`);
});

/** A server that gets the message to warm up, makes `turns`, and stops. @returns its messages */
function stopped(turns: number): FromReactor[] {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = createEventFd();
  const said: FromReactor[] = [];
  const say = (message: FromReactor): void => void said.push(message);
  const server = new ReactorServer({
    ...{ wakeFd, port: port2, say, startWarmUp: WarmUp.start },
    settings: { ...settings, isFlusherOptional: true },
  });
  const tell = (message: unknown): void => {
    port1.postMessage(message);
    writeSync(wakeFd, new BigUint64Array([1n]));
  };
  tell({ type: "warmUp", zeroCopy: true });
  for (let turn = 0; turn < turns; turn++) server.turn();
  tell({ id: 1, request: { type: "stop" } });
  while (server.turn());
  port1.close();
  closeSync(wakeFd);
  return said;
}

test("a reactor that stops during the warm-up leaves nothing, and reports nothing", () => {
  stopped(1);
  const before = held();
  for (const turns of [1, 2, 3, 30, 300]) {
    assert.equal(stopped(turns), [{ notice: "ready" }], `after ${turns} turns`);
    assert.equal(held(), before, `after ${turns} turns`);
  }
});

type Refused = "createRing" | "mapFile" | "memoryFile" | "eventFd";

/** The error if the system call `name` is refused at its n-th call. */
function failureWithout(name: Refused, nth: number): unknown {
  const real = native[name] as (...args: unknown[]) => unknown;
  let calls = 0;
  const refusing = (...args: unknown[]) => (++calls === nth ? -EPERM : real(...args));
  Object.assign(native, { [name]: refusing });
  let failure: unknown;
  let isEnded = false;
  try {
    WarmUp.start(reactor, settings, true, (error) => {
      failure = error;
      isEnded = true;
    });
    while (!isEnded) reactor.turn();
  } catch (error) {
    failure = error;
  }
  Object.assign(native, { [name]: real });
  return failure;
}

for (const name of ["createRing", "mapFile", "memoryFile", "eventFd"] as const) {
  test(`a warm-up that is refused ${name} leaves nothing`, () => {
    const before = held();
    let nth = 1;
    for (let failure: unknown; ; nth++) {
      failure = failureWithout(name, nth);
      assert.equal(held(), before, `call ${nth}`);
      if (failure === undefined) break;
      assert.match((failure as Error).message, "EPERM", `call ${nth}`);
    }
    assert.ok(nth > 1, "it was not asked for");
  });
}

test("the warm-up allocates what it maps: a store into a page without memory would end the process", () => {
  const { mapFile } = native;
  const mapped = new Set<string>();
  native.mapFile = (fd, offset, length, ...others) => {
    const name = readlinkSync(`/proc/self/fd/${fd}`).replace(" (deleted)", "");
    mapped.add(name);
    // The rest of a map is allocated in slices.
    const needed = name === "/memfd:map" ? PAGE_BYTES : length;
    assert.ok(fstatSync(fd).blocks * 512 >= needed, `${name}: ${length}`);
    return mapFile(fd, offset, length, ...others);
  };
  try {
    run(true);
  } finally {
    native.mapFile = mapFile;
  }
  assert.equal([...mapped].sort(), ["/memfd:cbt", "/memfd:map", "/memfd:ublkc"]);
});

test("a warm-up that does not end is abandoned", () => {
  const { idleTags } = DriverStandIn.prototype;
  DriverStandIn.prototype.idleTags = () => 0;
  let failure: unknown;
  WarmUp.start(reactor, settings, false, (error) => {
    failure = error;
  });
  while (failure === undefined) reactor.turn();
  DriverStandIn.prototype.idleTags = idleTags;
  assert.match((failure as Error).message, "does not end");
});

test.run();
