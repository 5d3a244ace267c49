/** Nodes that another program gave another table, over a device mapper that answers what the test says. */
import { type DeviceMapper, Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { LiveFollow } from "../../dist/tracker/live-follow.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

/** The pauses of a daemon keep no process alive. */
const alive = setInterval(() => undefined, 1_000);
test.after(() => clearInterval(alive));

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };

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
    /** Steps that fail, each so many times. */
    failing: { sync: 0, detach: 0, attach: 0 },
    /** After a detach somebody else has attached it. */
    tracked: false,
    onDetach: (): void => undefined,
    onSync: (): void => undefined,
  };
  splice.present = () => (is.gone ? undefined : (NODE as never));
  const done: string[] = [];
  const step = (name: "sync" | "detach" | "attach") => {
    if (is.failing[name]-- > 0) throw new Error(`${name} fails`);
  };
  const said: string[] = [];
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
  const follow: LiveFollow = new LiveFollow(
    {
      logger: { warn: () => undefined, error: (_: unknown, text: string) => said.push(text) },
    } as never,
    dm as unknown as DeviceMapper,
    {
      alone: async (_, operation, isDetached) => {
        if (++looks > 3) follow.stop();
        return isDetached && is.tracked ? "done" : operation();
      },
      isInSnapshot: () => is.snapshot,
      pathOf: async () => is.path,
      sync: async () => {
        step("sync");
        is.onSync();
      },
      detach: async () => {
        step("detach");
        done.push("detach");
        is.onDetach();
      },
      attach: async (path, reason) => {
        step("attach");
        done.push(`attach ${path}: ${reason}`);
      },
    },
    0,
  );
  const tracker = { device: "/dev/vg/data", splice } as Tracker;
  return { is, splice, done, said, follow, tracker, looks: () => looks };
}

test("a node that has grown, or has its table anew, is attached again, and the reason said", async () => {
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

test("one that leads to other data, or is gone, or was to be detached, stays as it is", async () => {
  for (const change of ["elsewhere", "gone", "detached"]) {
    const { is, done, follow, tracker, splice, looks } = world();
    if (change === "elsewhere") is.growth = undefined;
    if (change === "gone") is.gone = true;
    if (change === "detached") splice.isTaken = false;
    await follow.follow(tracker);
    assert.equal([done, looks()], [[], 1], change);
  }
});

test("what is in the way is waited for, without an end, and nothing is done meanwhile", async () => {
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

test("a program that loads tables time and again does not stop its users as often", async () => {
  const { done, follow, tracker, looks } = world();
  await follow.follow(tracker);
  assert.is(done.length, 2);
  await follow.follow(tracker);
  assert.equal([done.length, looks()], [2, 4]);
});

test("what fails before the detach is said once, and tried again", async () => {
  const looked = world();
  Object.defineProperty(looked.is, "growth", { get: () => assert.unreachable("no answer") });
  await looked.follow.follow(looked.tracker);
  assert.equal([looked.done, looked.looks(), looked.said.length], [[], 4, 1]);
  for (const name of ["sync", "detach"] as const) {
    const { follow, said, tracker, is, done } = world();
    is.failing[name] = 2;
    await follow.follow(tracker);
    assert.equal(done, ["detach", "attach /dev/vg/data: capacity_changed"]);
    assert.equal(said, [`it cannot be tracked again yet (${name} fails); trying again`]);
  }
});

test("a node that is changed while it is synced is not detached", async () => {
  const { follow, tracker, is, done } = world();
  is.onSync = () => {
    is.changing = true;
  };
  await follow.follow(tracker);
  assert.equal(done, []);
});

test("an attach that fails after the detach is tried again, under the node's name by then", async () => {
  const { follow, said, tracker, is, done, looks } = world();
  is.failing.attach = 2;
  is.onDetach = () => {
    is.path = "/dev/vg/renamed";
  };
  await follow.follow(tracker);
  assert.equal(done, ["detach", "attach /dev/vg/renamed: capacity_changed"]);
  assert.is(looks(), 3);
  assert.is(said.length, 1);
  assert.match(said[0] ?? "", /NOT tracked, .* \(attach fails\); trying again/);
});

test("it is not attached again where somebody has done it, or the node is gone", async () => {
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

test("a front that has ended in a detach that failed is attached again all the same", async () => {
  const { follow, tracker, is, done } = world();
  is.failing.detach = 1;
  Object.assign(tracker, { hasEnded: true });
  await follow.follow(tracker);
  assert.equal(done, ["attach /dev/vg/data: capacity_changed"]);
});

test.run();
