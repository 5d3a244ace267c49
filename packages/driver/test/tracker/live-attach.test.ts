/** Live attach over a device mapper that fails where the test says. */
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DeviceMapper, Splice } from "@blksnap/linux-block";
import { tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { LiveAttach } from "../../dist/tracker/live-attach.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };
const FRONT = "259:0";

/** The tables of one node; a step that fails may have been done all the same. */
class FakeMapper {
  leadsTo = "disk";
  waiting: string | undefined;
  failing = "";
  doneAllTheSame = false;
  readonly asked: string[] = [];
  present: { number: string; name: string; uuid: string; isSuspended?: boolean }[] = [];
  same = true;
  onLoad = (): void => undefined;
  /** Another program's: what the node leads to after an exchange. */
  stolen: string | undefined;
  isHeldByLvm = false;

  #step(name: string, work: () => void): Promise<void> {
    this.asked.push(name);
    const fails = this.failing === name;
    if (!fails || this.doneAllTheSame) work();
    return fails ? Promise.reject(new Error(`${name} fails`)) : Promise.resolve();
  }

  isLinearOn = async (_: string, layer: string) => this.leadsTo === layer;
  prepareSplice = (_: string, layer: string) => this.#step("load", () => (this.waiting = layer));
  prepareReturn = () =>
    this.#step("load", () => {
      this.waiting = "disk";
      this.onLoad();
    });
  /** In microseconds. */
  exchange = () =>
    this.#step("exchange", () => {
      this.leadsTo = this.stolen ?? this.waiting ?? this.leadsTo;
      this.waiting = undefined;
    }).then(() => 1234);
  dropWaiting = () => this.#step("drop", () => (this.waiting = undefined));
  resume = (number: string) => this.#step(`resume ${number}`, () => undefined);
  clone = async () => {
    this.asked.push("clone");
    return { number: "254:8" };
  };
  assertReturnable = () => this.#step("return", () => undefined);
  remove = (number: string) => this.#step(`remove ${number}`, () => undefined);
  /** It ends when the test lets it. */
  rename = (_: string, name: string) =>
    new Promise<void>((resolve) => {
      this.asked.push(name);
      this.onRenamed = resolve;
    });
  onRenamed = (): void => undefined;
  nodes = () => this.present;
  node = (number: string) => this.present.find((one) => one.number === number);
  haveSameTable = async () => this.same;
  growth: "same" | "grown" | undefined = "same";
  growthOf = async () => this.growth;
  hasOursWaiting = async (_: string, layer: string) =>
    this.waiting === layer || this.waiting === "disk";
  exclusively = async (_: unknown, work: () => Promise<void>) => {
    if (this.isHeldByLvm) throw new Error("LVM changes the volume group");
    await work();
  };
}

function world() {
  const state = new StateDirectory(mkdtempSync(join(tmpdir(), "live-")));
  const say = () => undefined;
  const errors: string[] = [];
  const pausesMs: number[] = [];
  const info = ({ withoutIoMs }: { withoutIoMs: number }) => pausesMs.push(withoutIoMs);
  const error = (_: unknown, text: string) => errors.push(text);
  const logger = { info, warn: say, error };
  const dm = new FakeMapper();
  const context = { state, logger, blockDevices: {} } as never;
  const live = new LiveAttach(context, dm as unknown as DeviceMapper);
  const splice = new Splice(NODE);
  splice.front = FRONT;
  const tracker = {
    device: "/dev/vg/data",
    front: { deviceNumber: FRONT, id: 0, path: "/dev/no-ublkb0" },
    splice,
    noteLink: () => dm.asked.push("note"),
  } as never;
  return {
    state,
    errors,
    pausesMs,
    dm,
    live,
    splice,
    tracker: tracker as Tracker & { splice: Splice },
  };
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error) => error.code,
  );
}

test("the node changes in the exchange alone, and back", async () => {
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

test("a splice that fails leaves the node as it was, and nothing in waiting", async () => {
  for (const failing of ["load", "exchange"]) {
    const { dm, live, tracker } = world();
    dm.failing = failing;
    assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
    assert.equal([dm.leadsTo, dm.waiting, dm.asked.at(-1)], ["disk", undefined, "drop"]);
    // A program that is killed between a refused exchange and its resume leaves the node suspended.
    assert.is(dm.asked.indexOf("resume 254:3") > dm.asked.indexOf("drop"), failing === "exchange");
  }
});

test("a node that gets another table before the exchange keeps that", async () => {
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

test("an exchange that was done though its program failed is done", async () => {
  const { dm, live, splice, tracker } = world();
  dm.failing = "exchange";
  dm.doneAllTheSame = true;
  await live.splice(tracker);
  assert.is(splice.state, "on");
  await live.takeOut(tracker);
  assert.is(dm.leadsTo, "disk");
});

test("a return that fails leaves the front under the node, watched as before", async () => {
  for (const failing of ["load", "exchange"]) {
    const { dm, live, splice, tracker } = world();
    await live.splice(tracker);
    dm.failing = failing;
    assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
    assert.equal([dm.leadsTo, dm.waiting, splice.state], [FRONT, undefined, "on"]);
  }
});

test("a return whose new table another program drops is told, and leaves all as before", async () => {
  const { dm, live, splice, tracker } = world();
  await live.splice(tracker);
  dm.onLoad = () => {
    dm.waiting = undefined;
  };
  assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
  assert.equal([dm.leadsTo, splice.state], [FRONT, "on"]);
});

test("a node that stays suspended is left to the next daemon", async () => {
  const { dm, live, tracker, state } = world();
  dm.failing = "exchange";
  dm.present = [{ ...NODE, isSuspended: true }];
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  assert.ok(existsSync(join(state.path, "exchange-254:3")));
  dm.asked.length = 0;
  const nobody = async () => undefined;
  await live.recover([], () => false, nobody);
  assert.equal(dm.asked, ["resume 254:3"]);
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

test("a table that another program loads before the exchange is not taken for the splice", async () => {
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
  // It is taken back at once, without LVM.
  await live.takeOut(tracker);
  dm.leadsTo = FRONT;
  splice.state = "on";
  assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
  assert.equal([dm.leadsTo, splice.state, dm.asked], [FRONT, "on", []]);
});

test("an exchange whose program does not end is waited for by whoever comes next", async () => {
  const { dm, live, state, tracker } = world();
  const path = join(state.path, "exchange-254:3");
  const program = openSync(path, "a");
  tryLockFile(program);
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  assert.not(dm.asked.includes("exchange"));
  assert.ok(existsSync(path), "the next daemon has to wait for it");
  closeSync(program);
  await live.splice(tracker);
  assert.is(dm.leadsTo, FRONT);
  assert.not(existsSync(path));
});

test("after a daemon's death an attach without its splice is taken back, others continue", async () => {
  const { dm, live, tracker } = world();
  const ended: Tracker[] = [];
  const end = async (one: Tracker) => void ended.push(one);
  dm.waiting = FRONT;
  await live.recover([tracker], () => false, end);
  assert.equal([ended.length, dm.waiting], [1, undefined]);

  await live.recover([tracker], () => true, end);
  assert.is(ended.length, 1, "in a snapshot: its loss is told");

  dm.leadsTo = FRONT;
  dm.waiting = "disk";
  await live.recover([tracker], () => false, end);
  assert.equal([ended.length, dm.waiting], [1, undefined]);
});

test("a node that leads elsewhere after a restart is detached aloud, one that has grown is left to be followed", async () => {
  for (const growth of ["grown", undefined] as const) {
    const { dm, live, tracker, errors } = world();
    dm.growth = growth;
    const ended: Tracker[] = [];
    const end = async (one: Tracker) => void ended.push(one);
    await live.settle([tracker], () => false, end);
    const text = "detached, as its node does not lead to its front: attach it again";
    const isEnded = growth === undefined;
    assert.equal([ended.length, errors], isEnded ? [1, [text]] : [0, []]);
  }
});

test("what an exchange has left is resumed, and its mark removed", async () => {
  const { dm, live, state } = world();
  writeFileSync(join(state.path, "exchange-254:3"), "");
  await live.recover(
    [],
    () => false,
    async () => undefined,
  );
  assert.equal(dm.asked, ["resume 254:3"]);
  assert.not(readdirSync(state.path).includes("exchange-254:3"));
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
  dm.same = false;
  await live.clones.removeOrphans([NODE]);
  assert.equal(dm.asked, ["remove 254:6"], "the node leads elsewhere");
});

const MAPPED = { ...NODE, sectors: 8, isReadOnly: false, isSuspended: false };
const WANTED = { ...MAPPED, slaves: [], holders: [] };

test("a clone is renamed after its node, one time after the other", async () => {
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

test("a clone is not made before another one has given its name up", async () => {
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

test("a clone that an earlier detach has left makes room for the next one", async () => {
  for (const isSame of [true, false]) {
    const { dm, live, state } = world();
    const uuid = `blksnap-${state.owner.toString(16).padStart(8, "0")}-254:3`;
    dm.same = isSame;
    dm.present = [NODE, { number: "254:5", name: "vg-data-blksnap", uuid }];
    const made = await live.clones.make(WANTED, []).then(
      ({ node }) => node.clone,
      ({ code, message }) => [code, message],
    );
    if (isSame) assert.equal([made, dm.asked], ["254:8", ["remove 254:5", "clone"]]);
    else assert.is(made[0], "SPLICE_FAILED");
    if (!isSame)
      assert.match(made[1], /left by an earlier detach, .*: the node 254:3 leads elsewhere/);
  }
});

test("clones that have a tracker, or are another node's or daemon's, are left", async () => {
  const { dm, live, state } = world();
  const own = `blksnap-${state.owner.toString(16).padStart(8, "0")}`;
  dm.present = [
    NODE,
    { number: NODE.clone, name: "vg-data-blksnap", uuid: `${own}-254:3` },
    { number: "254:6", name: "vg-home-blksnap", uuid: `${own}-254:4` },
    { number: "254:9", name: "vg-data-blksnap", uuid: "blksnap-00000000-254:3" },
  ];
  await live.clones.make(WANTED, [NODE]);
  assert.equal(dm.asked, ["clone"]);
});

test("whether a node may leave is known before anything is changed", async () => {
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
