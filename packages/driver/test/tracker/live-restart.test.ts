/** What the next daemon does with a live attach, depending on its node. */
import type { Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { LiveAttach } from "../../dist/tracker/live-attach.js";
import type { Tracker } from "../../dist/tracker/tracker.js";
import { codeOf, type FakeMapper, FRONT, NODE, world } from "./live-world.js";

const notFollowed = async () => false;

test("after a daemon's death an attach without its splice is undone, others continue", async () => {
  const { dm, live, tracker } = world();
  const ended: Tracker[] = [];
  const end = async (one: Tracker) => ended.push(one) === 0;
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

/** Whether a tracker whose node leads elsewhere after a restart is detached; otherwise it is left to be followed. */
async function isEndedAfterRestart(
  growth: "grown" | "same" | undefined,
  before: (
    live: LiveAttach,
    tracker: Tracker & { splice: Splice },
    dm: FakeMapper,
  ) => Promise<void>,
  isFollowed = false,
): Promise<boolean> {
  const { dm, live, tracker, errors } = world();
  await before(live, tracker, dm);
  dm.leadsTo = "elsewhere";
  dm.growth = growth;
  const ended: Tracker[] = [];
  await live.settle(
    [tracker],
    () => false,
    async (one) => {
      ended.push(one);
      return isFollowed;
    },
  );
  const then = isFollowed ? "it is attached again automatically" : "attach it again";
  const text = `detached, because its node does not lead to its front: ${then}`;
  assert.equal(errors, ended.length === 0 ? [] : [text]);
  return ended.length === 1;
}

test("after a restart, a node that leads elsewhere is detached, one that has grown is followed", async () => {
  const nothing = async () => undefined;
  for (const growth of ["grown", undefined] as const) {
    assert.is(await isEndedAfterRestart(growth, nothing), growth === undefined);
  }
  assert.ok(await isEndedAfterRestart(undefined, nothing, true), "the one before was to attach it");
});

test("a node whose detach had begun is not followed, even if it has grown since", async () => {
  const detached = async (live: LiveAttach, tracker: Tracker & { splice: Splice }) => {
    await live.splice(tracker);
    await live.takeOut(tracker);
  };
  assert.is(await isEndedAfterRestart("grown", detached), true);
  const followed = async (live: LiveAttach, tracker: Tracker & { splice: Splice }) => {
    await live.splice(tracker);
    await live.takeOut(tracker, true);
  };
  assert.is(await isEndedAfterRestart("grown", followed), false);
});

test("a tracker whose node is gone ends, whatever a new node with that number leads to", async () => {
  for (const growth of ["grown", "same"] as const) {
    const removed = async (
      live: LiveAttach,
      tracker: Tracker & { splice: Splice },
      dm: FakeMapper,
    ) => {
      await live.splice(tracker);
      dm.present = [{ number: NODE.number, name: "vg-other", uuid: "LVM-y" }];
    };
    assert.is(await isEndedAfterRestart(growth, removed), true);
  }
});

test("a node that another program has led back to the same data before a restart is followed after it", async () => {
  type Before = Parameters<typeof isEndedAfterRestart>[1];
  const attached: Before = (live, tracker) => live.splice(tracker);
  assert.is(await isEndedAfterRestart("same", attached), false);
  assert.is(await isEndedAfterRestart(undefined, attached), true, "it leads to other data");
  // For an older daemon, which did not record it: the node leads to its front when this daemon begins.
  const old: Before = async (live, tracker, dm) => {
    dm.leadsTo = FRONT;
    await live.settle([tracker], () => false, notFollowed);
  };
  assert.is(await isEndedAfterRestart("same", old), false);

  // An attach that did not complete, or a detach that nearly did, is ended.
  assert.is(await isEndedAfterRestart("same", async () => undefined), true);
  const detached: Before = async (live, tracker) => {
    await live.splice(tracker);
    await live.takeOut(tracker);
  };
  assert.is(await isEndedAfterRestart("same", detached), true);
  const followed: Before = async (live, tracker) => {
    await live.splice(tracker);
    await live.takeOut(tracker, true);
  };
  assert.is(await isEndedAfterRestart("same", followed), false);
  // A detach that failed has changed nothing.
  const kept: Before = async (live, tracker, dm) => {
    await live.splice(tracker);
    dm.failing = "exchange";
    assert.is(await codeOf(live.takeOut(tracker)), "SPLICE_FAILED");
    dm.failing = "";
  };
  assert.is(await isEndedAfterRestart("same", kept), false);
});

test.run();
