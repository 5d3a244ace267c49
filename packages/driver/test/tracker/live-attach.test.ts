/** Live attach over a device mapper that fails where the test says. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { codeOf, FRONT, NODE, world } from "./live-world.js";

const RESUME = `resume ${NODE.number}`;

test("only the exchange changes the node, in both directions", async () => {
  const { dm, live, splice, tracker, state, pausesMs } = world();
  await live.splice(tracker);
  assert.equal([splice.state, dm.leadsTo], ["on", FRONT]);
  await live.takeOut(tracker);
  assert.equal([dm.leadsTo, dm.waiting], ["disk", undefined]);
  assert.equal(dm.asked, ["load", "note", "exchange", "drop", "load", "exchange"]);
  assert.equal(pausesMs, [1.3, 1.3], "of the exchange alone, as the kernel's caller measures it");
  assert.equal(
    state.fileNames().filter((name) => name !== "lock"),
    [],
  );
});

test("a splice that fails leaves the node unchanged, and no inactive table", async () => {
  for (const failing of ["load", "exchange"]) {
    const { dm, live, tracker } = world();
    dm.failing = failing;
    assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
    assert.equal([dm.leadsTo, dm.waiting, dm.asked.at(-1)], ["disk", undefined, "drop"]);
    // If the program is killed between a refused exchange and its resume, the node stays suspended.
    assert.is(dm.asked.indexOf(RESUME) > dm.asked.indexOf("drop"), failing === "exchange");
  }
});

test("a node that gets another table before the exchange keeps it", async () => {
  const attaching = world();
  attaching.dm.same = false;
  assert.is(await codeOf(attaching.live.splice(attaching.tracker)), "SPLICE_FAILED");
  const detaching = world();
  await detaching.live.splice(detaching.tracker);
  detaching.dm.asked.length = 0;
  detaching.dm.onLoad = () => {
    detaching.dm.leadsTo = "another";
  };
  await detaching.live.takeOut(detaching.tracker);
  assert.is(detaching.dm.leadsTo, "another");
  for (const { dm } of [attaching, detaching]) {
    assert.is(dm.waiting, undefined);
    assert.not(dm.asked.includes("exchange"));
  }
});

test("an exchange that took effect although its program failed counts as done", async () => {
  const { dm, live, splice, tracker } = world();
  dm.failing = "exchange";
  dm.doneAllTheSame = true;
  await live.splice(tracker);
  assert.is(splice.state, "on");
  await live.takeOut(tracker);
  assert.is(dm.leadsTo, "disk");
});

test("a return that fails leaves the front under the node, and watched", async () => {
  for (const failing of ["load", "exchange"]) {
    const { dm, live, splice, tracker } = world();
    await live.splice(tracker);
    dm.failing = failing;
    assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
    assert.equal([dm.leadsTo, dm.waiting, splice.state], [FRONT, undefined, "on"]);
  }
});

test("a return whose new table another program drops is reported, and changes nothing", async () => {
  const { dm, live, splice, tracker } = world();
  await live.splice(tracker);
  dm.onLoad = () => {
    dm.waiting = undefined;
  };
  assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
  assert.equal([dm.leadsTo, splice.state], [FRONT, "on"]);
});

test("a node that leads elsewhere is not led back over another program's table", async () => {
  const { dm, live, tracker } = world();
  await live.splice(tracker);
  dm.leadsTo = "another";
  dm.waiting = FRONT;
  await live.takeOut(tracker);
  assert.equal([dm.leadsTo, dm.waiting], ["another", undefined]);
  assert.equal(dm.asked, ["load", "note", "exchange", "drop"]);
});

test("a table that another program loads before the exchange does not count as the splice", async () => {
  const { dm, live, splice, tracker } = world();
  dm.stolen = "another";
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  assert.equal([dm.leadsTo, splice.state], ["another", "making"]);
});

test("a node that LVM is changing is left alone, and so is one whose attach did not begin", async () => {
  const { dm, live, splice, tracker } = world();
  dm.isHeldByLvm = true;
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  assert.equal([dm.leadsTo, dm.asked], ["disk", []]);
  // It is undone at once, without LVM.
  await live.takeOut(tracker);
  dm.leadsTo = FRONT;
  splice.state = "on";
  assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
  assert.equal([dm.leadsTo, splice.state, dm.asked], [FRONT, "on", []]);
});

test("clones of ours without a tracker are removed, unless they are the only way", async () => {
  const { dm, live, state } = world();
  const owner = state.owner.toString(16).padStart(8, "0");
  const clone = (number: string, of: string, by = owner) => ({
    number,
    name: `clone-${number}`,
    uuid: `blksnap-${by}-${of}`,
  });
  dm.present = [
    { number: "254:1", name: "vg-data", uuid: "LVM-x" },
    clone("254:5", "254:1"),
    clone("254:6", "254:99"),
    clone("254:7", "254:1"),
    clone("254:8", "254:1", "00000000"),
  ];
  await live.clones.removeOrphans([NODE]);
  assert.equal(dm.asked, ["remove 254:5", "remove 254:6"]);
  dm.asked.length = 0;
  dm.growth = "grown";
  await live.clones.removeOrphans([NODE]);
  assert.equal(dm.asked, ["remove 254:5", "remove 254:6"], "the node leads to all of it");
  dm.asked.length = 0;
  dm.growth = undefined;
  await live.clones.removeOrphans([NODE]);
  assert.equal(dm.asked, ["remove 254:6"], "the node leads elsewhere");
});

const MAPPED = { ...NODE, sectors: 8, isReadOnly: false, isSuspended: false };
const WANTED = { ...MAPPED, slaves: [], holders: [] };

test("a clone is renamed after its node, one rename at a time", async () => {
  const { dm, live, splice } = world();
  const renames = ["vg-second", "vg-third"].map((name) => {
    splice.node = { ...splice.node, name };
    return live.clones.follow(splice);
  });
  await new Promise((done) => setImmediate(done));
  assert.equal(dm.asked, ["vg-third-blksnap"], "by the name that it has by now");
  dm.onRenamed();
  await renames[0];
  await new Promise((done) => setImmediate(done));
  assert.is(dm.asked.length, 2);
  dm.onRenamed();
  await renames[1];
});

test("a clone is not made before another one has released its name", async () => {
  const { dm, live, splice } = world();
  splice.node = { ...splice.node, name: "vg-renamed" };
  const renamed = live.clones.follow(splice);
  const made = live.clones.make({ ...WANTED, number: "254:9" }, [NODE]);
  await new Promise((done) => setImmediate(done));
  assert.equal(dm.asked, ["vg-renamed-blksnap"]);
  dm.onRenamed();
  await Promise.all([renamed, made]);
  assert.equal(dm.asked, ["vg-renamed-blksnap", "clone"]);
});

test("a clone left by an earlier detach makes room for the next one", async () => {
  for (const isSame of [true, false]) {
    const { dm, live, state } = world();
    const uuid = `blksnap-${state.owner.toString(16).padStart(8, "0")}-${NODE.number}`;
    dm.growth = isSame ? "same" : undefined;
    dm.present = [NODE, { number: "254:5", name: "vg-data-blksnap", uuid }];
    const made = await live.clones.make(WANTED, []).then(
      ({ node }) => node.clone,
      ({ code, message }) => [code, message],
    );
    if (isSame) assert.equal([made, dm.asked], ["254:8", ["remove 254:5", "clone"]]);
    else assert.is(made[0], "SPLICE_FAILED");
    if (!isSame)
      assert.match(made[1], /left by an earlier detach, .*: the node 254:1048575 leads elsewhere/);
  }
});

test("clones with a tracker, or of another node or daemon, are left alone", async () => {
  const { dm, live, state } = world();
  const own = `blksnap-${state.owner.toString(16).padStart(8, "0")}`;
  dm.present = [
    NODE,
    { number: NODE.clone, name: "vg-data-blksnap", uuid: `${own}-${NODE.number}` },
    { number: "254:6", name: "vg-home-blksnap", uuid: `${own}-254:4` },
    { number: "254:9", name: "vg-data-blksnap", uuid: `blksnap-00000000-${NODE.number}` },
  ];
  await live.clones.make(WANTED, [NODE]);
  assert.equal(dm.asked, ["clone"]);
});

test("whether a node may leave is known before anything changes", async () => {
  const { dm, live, splice, tracker } = world();
  await live.splice(tracker);
  dm.asked.length = 0;
  await live.assertMayLeave(tracker);
  dm.failing = "return";
  assert.is(await codeOf(live.assertMayLeave(tracker)), "SPLICE_FAILED");
  dm.failing = "";
  dm.isHeldByLvm = true;
  assert.is(await codeOf(live.assertMayLeave(tracker)), "SPLICE_FAILED");
  assert.equal(dm.asked, ["return", "return"]);
  assert.equal([dm.leadsTo, splice.state], [FRONT, "on"]);
  dm.leadsTo = "another";
  await live.assertMayLeave(tracker);
});

test.run();
