/** A reactor's work between the request for a queue and its first command. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { acquireClaim, makeClaim, withdraw } from "../dist/claim.js";
import { BUFFERS_BYTES, POPULATE_WRITE, ServerWorld } from "./server-world.js";

const MIB = 2 ** 20;

test("a queue's buffers are populated slice by slice before it is made, with other requests in between", () => {
  const world = new ServerWorld();
  world.post(1, world.attachRequest(), makeClaim());
  world.turns(() => world.calls.length > 0);
  assert.equal(world.calls, ["populate 0 262144"]);
  world.post(2, { type: "counters", tracker: 7 });
  world.turns(() => world.answers(2).length > 0);
  assert.equal(world.answers(1), [], "the other request had to wait");
  world.turns(() => world.answers(1).length > 0);
  const slices = Array.from({ length: 8 }, (_, index) => `populate ${index * 262_144} 262144`);
  assert.equal(world.calls, [...slices, `register ${BUFFERS_BYTES}`]);
  assert.is(world.mapped, 1, "the queue has what was populated");
  world.close();
});

test("a request withdrawn while its buffers are populated leaves nothing behind", () => {
  const world = new ServerWorld();
  const claim = makeClaim();
  world.post(1, world.attachRequest(), claim);
  world.turns(() => world.calls.length > 0);
  assert.is(world.mapped, 1);
  assert.ok(withdraw(claim), "it can still be withdrawn");
  world.turns(() => world.mapped === 0);
  assert.is(world.calls.filter((call) => call.startsWith("populate")).length, 8);
  assert.equal(world.answers(1), []);
  assert.not(acquireClaim(claim));
  world.close();
});

test("a device that cannot be made frees the buffers and says why", () => {
  const world = new ServerWorld();
  const request = world.attachRequest();
  world.post(1, { ...request, cbt: { ...request.cbt, lengthBytes: 4096 } }, makeClaim());
  world.turns(() => world.answers(1).length > 0);
  assert.ok("error" in (world.answers(1)[0] as object));
  world.turns(() => world.mapped === 0);
  world.close();
});

test("long buffers are pinned and freed in slices, one in a turn", () => {
  const world = new ServerWorld();
  world.post(1, world.attachRequest(64), makeClaim());
  const inTurns: string[][] = [];
  const isOver = (condition: boolean): boolean => {
    inTurns.push(world.calls.splice(0));
    return condition;
  };
  world.turns(() => isOver(world.answers(1).length > 0));
  // The kernel refuses the commands: the queue ends.
  world.turns(() => isOver(world.mapped === 0));
  const most = (name: string): number =>
    Math.max(...inTurns.map((calls) => calls.filter((call) => call.startsWith(name)).length));
  assert.equal([most("populate"), most("register"), most("free")], [1, 1, 1]);
  const done = inTurns.flat().filter((call) => !call.startsWith("populate"));
  const frees = Array.from({ length: 32 }, (_, index) => `free ${index * MIB} ${MIB}`);
  assert.equal(done, [...Array<string>(4).fill(`register ${8 * MIB}`), ...frees]);
  world.close();
});

test("the queue is made even if the kernel cannot populate", () => {
  const world = new ServerWorld();
  const { advise } = native;
  native.advise = (mapping, offset, length, advice) =>
    advice === POPULATE_WRITE ? -22 : advise(mapping, offset, length, advice);
  world.post(1, world.attachRequest(), makeClaim());
  world.turns(() => world.answers(1).length > 0);
  assert.not("error" in (world.answers(1)[0] as object));
  assert.equal(world.calls, [`register ${BUFFERS_BYTES}`]);
  world.close();
});

test.run();
