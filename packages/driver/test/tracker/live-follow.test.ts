/** Nodes that another program gave another table, with a device mapper that answers as the test says. */
import { type DeviceMapper, Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { LiveFollow } from "../../dist/tracker/live-follow.js";
import { LiveReturns } from "../../dist/tracker/live-returns.js";
import type { Tracker } from "../../dist/tracker/tracker.js";
import { NODE, stateAndLog } from "./live-world.js";

/** The daemon's pauses keep no process alive. */
const alive = setInterval(() => undefined, 1_000);
test.after(() => clearInterval(alive));

function world() {
  const splice = new Splice(NODE);
  splice.lose("another program gave it another table");
  splice.isTaken = true;
  const is = {
    gone: false,
    snapshot: false,
    held: false,
    changing: false,
    path: "/dev/vg/data" as string | undefined,
    growth: "grown" as "same" | "grown" | undefined,
    /** How many times each step fails. */
    failing: { sync: 0, detach: 0, attach: 0 },
    /** After a detach, another caller has attached it. */
    tracked: false,
    onDetach: (): void => undefined,
    onSync: (): void => undefined,
  };
  splice.present = () => (is.gone ? undefined : (NODE as never));
  const done: string[] = [];
  const step = (name: "sync" | "detach" | "attach") => {
    if (is.failing[name]-- > 0) throw new Error(`${name} fails`);
  };
  const { state, errors, logger } = stateAndLog();
  /** Ends after so many looks. */
  let looks = 0;
  const dm = {
    exclusively: async (_: unknown, work: () => Promise<void>) => {
      if (is.held) throw new Error("LVM changes the volume group");
      await work();
    },
    assertUnchanging: async () => {
      if (is.changing) throw new Error("a table waits");
    },
    growthOf: async () => is.growth,
  };
  const returns = new LiveReturns({ state, logger } as never);
  /** What the next daemon would find. */
  const onRecord = () => new LiveReturns({ state, logger } as never).load();
  const countLook = () => {
    if (++looks > 3) follow.stop();
  };
  const follow: LiveFollow = new LiveFollow(
    { logger } as never,
    dm as unknown as DeviceMapper,
    returns,
    {
      alone: async (_, operation) => {
        countLook();
        return operation();
      },
      aloneAway: async (_, operation) => {
        countLook();
        return is.tracked ? "done" : operation();
      },
      isInSnapshot: () => is.snapshot,
      pathOf: async () => is.path,
      sync: async () => {
        step("sync");
        is.onSync();
      },
      detach: async () => {
        step("detach");
        done.push(`detach${onRecord().length === 1 ? "" : " without a record"}`);
        is.onDetach();
      },
      attach: async (path, reason) => {
        step("attach");
        done.push(`attach ${path}: ${reason}`);
      },
    },
    { intervalMs: 0, afterEndMs: 0 },
  );
  const tracker = { device: "/dev/vg/data", splice, front: { path: "/dev/ublkb3" } } as Tracker;
  return { is, splice, done, errors, follow, tracker, returns, onRecord, looks: () => looks };
}

test("a node that has grown, or was reloaded, is attached again, with the reason", async () => {
  for (const [growth, reason] of [
    ["grown", "capacity_changed"],
    ["same", "interrupted"],
  ] as const) {
    const { is, done, follow, tracker } = world();
    is.growth = growth;
    await follow.follow(tracker);
    assert.equal(done, ["detach", `attach /dev/vg/data: ${reason}`]);
  }
});

test("a node that leads to other data, is gone, or was being detached stays as it is", async () => {
  for (const change of ["elsewhere", "gone", "detached"]) {
    const { is, done, follow, tracker, splice, looks } = world();
    if (change === "elsewhere") is.growth = undefined;
    if (change === "gone") is.gone = true;
    if (change === "detached") splice.isTaken = false;
    await follow.follow(tracker);
    assert.equal([done, looks()], [[], 1], change);
  }
});

test("obstacles are waited for without a limit, and nothing is done meanwhile", async () => {
  for (const change of ["snapshot", "held", "changing"] as const) {
    const { is, done, follow, tracker, looks } = world();
    is[change] = true;
    await follow.follow(tracker);
    assert.equal([done, looks()], [[], 4], change);
  }
  const { is, done, follow, tracker } = world();
  is.path = undefined;
  await follow.follow(tracker);
  assert.equal(done, [], "its new name is not there yet");
});

test("a program that reloads tables repeatedly does not stop its users as often", async () => {
  const { done, follow, tracker, looks } = world();
  await follow.follow(tracker);
  assert.is(done.length, 2);
  await follow.follow(tracker);
  assert.equal([done.length, looks()], [2, 4]);
});

test("failures before the detach are logged once, and retried", async () => {
  const looked = world();
  Object.defineProperty(looked.is, "growth", { get: () => assert.unreachable("no answer") });
  await looked.follow.follow(looked.tracker);
  assert.equal([looked.done, looked.looks(), looked.errors.length], [[], 4, 1]);
  for (const name of ["sync", "detach"] as const) {
    const { follow, errors, tracker, is, done } = world();
    is.failing[name] = 2;
    await follow.follow(tracker);
    assert.equal(done, ["detach", "attach /dev/vg/data: capacity_changed"]);
    assert.equal(errors, [`it cannot be tracked again yet (${name} fails); retrying`]);
  }
});

test("a node that is changed during its sync is not detached", async () => {
  const { follow, tracker, is, done } = world();
  is.onSync = () => {
    is.changing = true;
  };
  await follow.follow(tracker);
  assert.equal(done, []);
});

test("an attach that fails after the detach is retried, under the node's present name", async () => {
  const { follow, errors, tracker, is, done, looks } = world();
  is.failing.attach = 2;
  is.onDetach = () => {
    is.path = "/dev/vg/renamed";
  };
  await follow.follow(tracker);
  assert.equal(done, ["detach", "attach /dev/vg/renamed: capacity_changed"]);
  assert.is(looks(), 3);
  assert.is(errors.length, 1);
  assert.match(errors[0] ?? "", /NOT tracked until .* \(attach fails\); retrying/);
});

test("a volume is not attached again if it already is, or if its node is gone", async () => {
  for (const change of ["tracked", "gone"] as const) {
    const { follow, tracker, is, done, looks } = world();
    is.failing.attach = 1;
    is.onDetach = () => {
      is.tracked = change === "tracked";
    };
    const pathBefore = is.path;
    Object.defineProperty(is, "path", {
      get: () => {
        is.gone = change === "gone" && done.length > 0;
        return pathBefore;
      },
    });
    await follow.follow(tracker);
    assert.equal([done, looks()], [["detach"], 2], change);
  }
});

test("a front that ended in a failed detach is attached again", async () => {
  const { follow, tracker, is, done } = world();
  is.failing.detach = 1;
  Object.assign(tracker, { hasEnded: true });
  await follow.follow(tracker);
  assert.equal(done, ["attach /dev/vg/data: capacity_changed"]);
});

test("a detached volume is on record and listed until it is tracked, with the reason why it is not", async () => {
  const { follow, tracker, is, returns, onRecord } = world();
  is.failing.attach = 9;
  await follow.follow(tracker);
  for (const [{ device, front, reason, splice }] of [returns.all, onRecord()]) {
    assert.equal([device, front, reason], ["/dev/vg/data", "/dev/ublkb3", "capacity_changed"]);
    assert.equal(splice.node, NODE);
  }
  assert.equal([returns.all[0].why, onRecord()[0].why], ["attach fails", null]);
  assert.is(returns.all[0].since, onRecord()[0].since);

  for (const change of ["tracked", "attached", "gone"] as const) {
    const after = world();
    after.is.failing.attach = 1;
    after.is.tracked = change === "tracked";
    if (change === "gone") after.is.onDetach = () => queueMicrotask(() => (after.is.gone = true));
    await after.follow.follow(after.tracker);
    assert.equal([after.returns.all, after.onRecord()], [[], []], change);
  }
});

test("the next daemon attaches what its predecessor had detached, for the same reason", async () => {
  const before = world();
  before.is.failing.attach = 9;
  before.is.growth = "same";
  await before.follow.follow(before.tracker);
  const [record] = before.onRecord();

  const { follow, done, returns, is, looks } = world();
  is.failing.attach = 1;
  const away = { ...record, splice: Object.assign(record.splice, { present: () => NODE }) };
  returns.begin(away);
  await follow.followAway(returns.all[0]);
  assert.equal([done, looks()], [["attach /dev/vg/data: interrupted"], 2]);
  assert.equal(returns.all, []);
});

test("a volume with which several daemons have ended is not attached, and forgotten when its node is gone", async () => {
  for (const [unended, isGone, attached] of [
    [2, false, 1],
    [3, false, 0],
    [3, true, 0],
  ] as const) {
    const { follow, done, returns, is, splice } = world();
    is.gone = isGone;
    const one = { device: "/dev/vg/data", splice, front: "/dev/ublkb3", unended };
    returns.begin({ ...one, reason: "interrupted" });
    await follow.followAway({ ...returns.all[0]!, unended });
    assert.is(done.length, attached, `${unended}`);
    assert.is(returns.all.length, unended === 3 && !isGone ? 1 : 0);
  }
});

test("a volume that was given up is not attached, and one that cannot be recorded is not detached", async () => {
  const { follow, tracker, is, returns, done, onRecord } = world();
  is.failing.attach = 1;
  is.onSync = () => {
    is.path = "/dev/vg/given-up";
  };
  const attempts: string[] = [];
  Object.defineProperty(is.failing, "attach", {
    get: () => {
      attempts.push("attach");
      returns.end(NODE.number);
      return 1;
    },
    set: () => undefined,
  });
  await follow.follow(tracker);
  assert.equal([attempts.length, done, onRecord()], [1, ["detach"], []]);

  const full = world();
  full.returns.begin = () => {
    throw new Error("no room for the record");
  };
  await full.follow.follow(full.tracker);
  assert.equal([full.done, full.returns.all], [[], []]);
  assert.match(full.errors[0] ?? "", /cannot be tracked again yet \(no room/);
});

test("nothing is attached again while a daemon may be about to end, and it is afterwards", async () => {
  const began = world();
  began.follow.hold(true);
  began.is.failing.sync = 9;
  await began.follow.follow(began.tracker);
  assert.equal([began.done, began.errors, began.onRecord()], [[], [], []]);
  const late = world();
  late.is.onSync = () => late.follow.hold(true);
  await late.follow.follow(late.tracker);
  assert.equal([late.done, late.onRecord()], [[], []]);

  for (const end of ["held", "stopped"] as const) {
    const { follow, tracker, is, done, onRecord, looks } = world();
    is.onDetach = () => (end === "held" ? follow.hold(true) : follow.stop());
    await follow.follow(tracker);
    assert.equal([done, looks()], [["detach"], end === "held" ? 4 : 1]);
    // For the next daemon, unless this one ends everything.
    assert.is(onRecord().length, 1);
  }
  const { follow, tracker, is, done, onRecord } = world();
  is.onDetach = () => {
    follow.hold(true);
    setImmediate(() => follow.hold(false));
  };
  await follow.follow(tracker);
  assert.equal(done, ["detach", "attach /dev/vg/data: capacity_changed"]);
  assert.equal(onRecord(), []);
});

test("an attach of another device meanwhile leaves the record alone", async () => {
  const { follow, tracker, returns, done, is } = world();
  const other = new Splice({ ...NODE, number: "254:4" });
  is.onDetach = () => returns.endOf({ splice: other } as Tracker);
  await follow.follow(tracker);
  assert.equal(done, ["detach", "attach /dev/vg/data: capacity_changed"]);
  returns.begin({
    device: "/dev/vg/data",
    splice: tracker.splice as Splice,
    front: "",
    reason: "interrupted",
  });
  returns.endOf(tracker);
  assert.equal(returns.all, []);
});

test("neither a detach that fails nor an orderly end leaves a record", async () => {
  const { follow, tracker, is, onRecord, returns } = world();
  is.failing.detach = 9;
  await follow.follow(tracker);
  assert.equal([onRecord(), returns.all], [[], []]);

  const ended = world();
  ended.is.failing.attach = 9;
  await ended.follow.follow(ended.tracker);
  assert.is(ended.onRecord().length, 1);
  ended.returns.close();
  assert.equal([ended.onRecord(), ended.returns.all], [[], []]);
});

test.run();
