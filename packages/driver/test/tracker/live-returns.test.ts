/** Volumes that are to be attached again, across several daemons. */
import { Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isGivenUp, LiveReturns, returnText } from "../../dist/tracker/live-returns.js";
import { NODE, stateAndLog } from "./live-world.js";

const never = () => new Promise<void>(() => undefined);

/** @param names paths in /dev, and their targets */
function world(names: Readonly<Record<string, string>> = {}) {
  const { state, errors, logger } = stateAndLog();
  const lookUp = async (path: string) => {
    if (names[path] === undefined) throw Object.assign(new Error(path), { code: "ENOENT" });
    return { identity: names[path] };
  };
  const context = { state, logger, blockDevices: { lookUp } } as never;
  /** A daemon that begins; its predecessor is dead. */
  const life = () => {
    const returns = new LiveReturns(context);
    returns.load();
    for (const { splice } of returns.all) splice.present = () => NODE as never;
    return returns;
  };
  const begun = () => {
    const returns = life();
    const splice = new Splice(NODE);
    splice.present = () => NODE as never;
    const one = { device: "/dev/vg/data", splice, front: "/dev/ublkb3" };
    returns.begin({ ...one, reason: "interrupted" });
    return returns;
  };
  return { state, errors, life, begun };
}

test("attempts that end with their daemon are counted across daemons, and the third is the last", async () => {
  const { life, begun } = world();
  begun();
  for (const [unended, why] of [
    [1, "a daemon has ended while attaching it"],
    [2, "2 daemons have ended while attaching it"],
    [3, "3 daemons have ended while attaching it"],
  ] as const) {
    const returns = life();
    void returns.counted(returns.all[0]!, never);
    const [away] = life().all;
    assert.equal([away?.unended, away?.why], [unended, why]);
    assert.is(isGivenUp(away!), unended === 3);
    const then =
      unended === 3 ? /NOT attached again automatically: 3 daemons/ : /after a while: .* ended/;
    assert.match(returnText(away!), then);
  }
});

test("an attempt that its daemon sees end does not count, and does not reset the count", async () => {
  const { life, begun } = world();
  const first = begun();
  void first.counted(first.all[0]!, never);
  const returns = life();
  const failing = () => Promise.reject(new Error("LVM is at work"));
  const failure = await returns.counted(returns.all[0]!, failing).catch(({ message }) => message);
  assert.equal([failure, life().all[0]?.unended], ["LVM is at work", 1]);
});

test("a daemon that survives three failures resets the count: earlier daemons ended for other reasons", async () => {
  const { life, begun } = world();
  const first = begun();
  void first.counted(first.all[0]!, never);
  const second = life();
  void second.counted(second.all[0]!, never);
  const returns = life();
  const [away] = returns.all;
  const counts: (number | undefined)[] = [];
  for (let attempt = 0; attempt < 3; attempt++) {
    await returns.counted(away!, () => Promise.reject(new Error("it fails"))).catch(() => {});
    // With the first object, as its follower has it.
    returns.noteFailure(away!, "it fails");
    counts.push(life().all[0]?.unended);
  }
  assert.equal([counts, returns.all[0]?.unended], [[2, 2, 0], 0]);
  void returns.counted(away!, never);
  assert.is(life().all[0]?.unended, 1);
});

test("an attempt in progress when its daemon leaves on request does not count", async () => {
  const { life, begun } = world();
  begun();
  for (let restart = 0; restart < 3; restart++) {
    const returns = life();
    void returns.counted(returns.all[0]!, never);
    assert.is(life().all[0]?.unended, 1);
    returns.uncountUnderWay();
    assert.is(life().all[0]?.unended, 0);
  }
  const returns = life();
  void returns.counted(returns.all[0]!, never);
  returns.end(NODE.number);
  returns.uncountUnderWay();
  assert.equal(life().all, [], "what was given up stays so");
});

test("a volume that is given up during its attach does not return to the records", async () => {
  const { life, begun } = world();
  const returns = begun();
  const failing = async () => {
    returns.end(NODE.number);
    throw new Error("it fails");
  };
  await returns.counted(returns.all[0]!, failing).catch(() => undefined);
  assert.equal(life().all, []);
});

test("without room to record an attempt it is not made, and without room to reset it, it still counts", async () => {
  const { life, begun, state, errors } = world();
  const returns = begun();
  const { writeRecord } = state;
  state.writeRecord = () => {
    throw new Error("no room");
  };
  const untried = async () => assert.unreachable("it is tried");
  const refusal = await returns.counted(returns.all[0]!, untried).catch(({ message }) => message);
  assert.is(refusal, "no room");
  state.writeRecord = writeRecord;
  const failing = async () => {
    state.writeRecord = () => {
      throw new Error("no room");
    };
    throw new Error("it fails");
  };
  const failure = await returns.counted(returns.all[0]!, failing).catch(({ message }) => message);
  assert.equal([failure, life().all[0]?.unended], ["it fails", 1]);
  assert.match(errors[0] ?? "", "is not updated");
});

test("a volume is found by its present name, by earlier names, and by its uuid", async () => {
  const renamed = { "/dev/vg/new": `block:${NODE.number}`, "/dev/vg/other": "block:254:9" };
  const had = ["/dev/vg/data", "/dev/mapper/vg-data", "/dev/disk/by-id/dm-uuid-LVM-x"];
  const returns = world(renamed).begun();
  for (const path of ["/dev/vg/new", ...had]) {
    assert.is((await returns.at(path))?.device, "/dev/vg/data", path);
  }
  for (const path of ["/dev/vg/other", "/dev/vg/none"])
    assert.is(await returns.at(path), undefined);
  // Another volume has the name by now.
  const taken = world({ "/dev/vg/data": "block:254:9" }).begun();
  assert.is(await taken.at("/dev/vg/data"), undefined);
});

test.run();
