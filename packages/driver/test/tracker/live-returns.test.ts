/** Volumes that are to be attached again, over the lives of daemons. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { isGivenUp, LiveReturns, returnText } from "../../dist/tracker/live-returns.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };
const never = () => new Promise<void>(() => undefined);

/** @param names what is in /dev, and what it is */
function world(names: Readonly<Record<string, string>> = {}) {
  const state = new StateDirectory(mkdtempSync(join(tmpdir(), "returns-")));
  const said: string[] = [];
  const logger = { error: (_: unknown, text: string) => said.push(text), warn: () => undefined };
  const lookAt = async (path: string) => {
    if (names[path] === undefined) throw Object.assign(new Error(path), { code: "ENOENT" });
    return { identity: names[path] };
  };
  const context = { state, logger, blockDevices: { lookAt } } as never;
  /** A daemon that begins; the one before is dead. */
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
  return { state, said, life, begun };
}

test("attempts that end with their daemon are counted over its successors, and the third is the last", async () => {
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

test("an attempt of which the daemon sees the end is not counted, and does not make up for others", async () => {
  const { life, begun } = world();
  const first = begun();
  void first.counted(first.all[0]!, never);
  const returns = life();
  const failing = () => Promise.reject(new Error("LVM is at work"));
  const failure = await returns.counted(returns.all[0]!, failing).catch(({ message }) => message);
  assert.equal([failure, life().all[0]?.unended], ["LVM is at work", 1]);
});

test("a daemon that sees three fail makes up for those that have ended before: they were other ends", async () => {
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
    // With what was known of it at first, as who follows it has.
    returns.noteFailure(away!, "it fails");
    counts.push(life().all[0]?.unended);
  }
  assert.equal([counts, returns.all[0]?.unended], [[2, 2, 0], 0]);
  void returns.counted(away!, never);
  assert.is(life().all[0]?.unended, 1);
});

test("an attempt that is under way when its daemon is told to leave is not counted", async () => {
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

test("what is given up while it is attached does not come back on record", async () => {
  const { life, begun } = world();
  const returns = begun();
  const failing = async () => {
    returns.end(NODE.number);
    throw new Error("it fails");
  };
  await returns.counted(returns.all[0]!, failing).catch(() => undefined);
  assert.equal(life().all, []);
});

test("without room on record it is not tried, and without room to take it back it stays counted", async () => {
  const { life, begun, state, said } = world();
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
  assert.match(said[0] ?? "", "is not updated");
});

test("one is found by the name that it has, by those that it had, and by its uuid", async () => {
  const renamed = { "/dev/vg/new": "block:254:3", "/dev/vg/other": "block:254:9" };
  const had = ["/dev/vg/data", "/dev/mapper/vg-data", "/dev/disk/by-id/dm-uuid-LVM-x"];
  const returns = world(renamed).begun();
  for (const path of ["/dev/vg/new", ...had]) {
    assert.is((await returns.at(path))?.device, "/dev/vg/data", path);
  }
  for (const path of ["/dev/vg/other", "/dev/vg/none"])
    assert.is(await returns.at(path), undefined);
  // The name is another volume's by now.
  const taken = world({ "/dev/vg/data": "block:254:9" }).begun();
  assert.is(await taken.at("/dev/vg/data"), undefined);
});

test.run();
