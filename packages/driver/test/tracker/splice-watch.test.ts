/** Nodes whose target changes, as the watch sees it. */
import { Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { assertSpliced, nodeChanges, SpliceWatch } from "../../dist/tracker/splice-watch.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };

test("a loss while no daemon serves is known when the next one begins to look", () => {
  const splice = new Splice(NODE);
  splice.state = "on";
  splice.leadsTo = () => false;
  const told: object[] = [];
  const tracker = { device: "/dev/vg/data", splice, front: { id: 0 } };
  const watch = new SpliceWatch(
    () => [tracker],
    { onLost: (one) => told.push(one), onRenamed: () => undefined },
    { intervalMs: 2 ** 31 - 1 },
  );
  watch.look(() => false);
  assert.equal(told, []);
  watch.begin();
  assert.equal(told, [tracker]);
  watch.stop();
});

test("a change of any node is checked at once", async () => {
  const splice = new Splice(NODE);
  splice.state = "on";
  let leads = true;
  splice.leadsTo = () => leads;
  const changes: (() => void)[] = [];
  let told = 0;
  const watch = new SpliceWatch(
    () => [{ device: "/dev/vg/data", splice, front: { id: 0 } }],
    { onLost: () => told++, onRenamed: () => undefined },
    { intervalMs: 2 ** 31 - 1, untilChange: () => new Promise<void>((done) => changes.push(done)) },
  );
  watch.begin();
  watch.look();
  assert.is(changes.length, 1, "one waits");
  leads = false;
  changes[0]?.();
  await new Promise((done) => setImmediate(done));
  assert.equal([told, changes.length], [1, 2]);
  watch.stop();
  changes[1]?.();
  await new Promise((done) => setImmediate(done));
  assert.is(changes.length, 2);
});

test("if changes cannot be waited for, the timer checks again", async () => {
  let polls = 0;
  // The fifth is not answered, so that a watch that asks at once does not ask without end.
  const ring = {
    submit: () => (++polls < 5 ? Promise.resolve(-12) : new Promise<number>(() => undefined)),
  };
  const splice = new Splice(NODE);
  splice.state = "on";
  splice.leadsTo = () => true;
  const watch = new SpliceWatch(
    () => [{ device: "/dev/vg/data", splice, front: { id: 0 } }],
    { onLost: () => assert.unreachable(), onRenamed: () => undefined },
    { intervalMs: 2 ** 31 - 1, untilChange: nodeChanges(ring, "/dev/null") },
  );
  watch.begin();
  for (let turns = 0; turns < 20; turns++) await new Promise((done) => setImmediate(done));
  assert.is(polls, 1);
  watch.look();
  assert.is(polls, 2);
  watch.stop();
});

test("a node that is renamed after its loss is known by its new name", () => {
  const splice = new Splice(NODE);
  splice.state = "on";
  splice.leadsTo = () => false;
  let name = NODE.name;
  splice.present = () => ({ ...NODE, name }) as never;
  const told: string[] = [];
  const watch = new SpliceWatch(() => [{ device: "/dev/vg/data", splice, front: { id: 0 } }], {
    onLost: () => told.push("lost"),
    onRenamed: () => told.push(splice.node.name),
  });
  watch.look();
  name = "vg-archive";
  watch.look();
  watch.look();
  assert.equal(told, ["lost", "vg-archive"]);
});

test("a loss is reported once, and stays", () => {
  const splice = new Splice(NODE);
  const tracker = { device: "/dev/vg/data", splice, front: { id: 0 } };
  const told: unknown[] = [];
  const watch = new SpliceWatch(() => [tracker], {
    onLost: (one) => told.push(one),
    onRenamed: () => undefined,
  });
  let leads = true;
  splice.leadsTo = () => leads;
  leads = false;
  watch.look();
  assert.is(splice.state, "making", "not before it was made");
  leads = true;
  splice.state = "on";
  watch.look();
  assertSpliced(tracker as never);
  leads = false;
  assert.throws(() => assertSpliced(tracker as never), /writes were missed/);
  watch.look();
  watch.look();
  leads = true;
  assert.throws(() => assertSpliced(tracker as never), /writes were missed/);
  assert.equal(told, [tracker]);
  watch.stop();
});

test.run();
