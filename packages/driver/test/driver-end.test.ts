import { test } from "uvu";
import * as assert from "uvu/assert";
import { deviceLock, endAll, endLive, snapshotLock } from "../dist/driver-end.js";
import { OperationLocks } from "../dist/operations/operation-locks.js";
import type { Snapshot } from "../dist/snapshot/snapshot.js";
import type { Tracker } from "../dist/tracker/tracker.js";

/** Two devices in a snapshot, and a third one. */
function house(hangs: (what: string) => Promise<void> | undefined = () => undefined) {
  const locks = new OperationLocks({ busy: Error, closed: Error, aborted: Error });
  const done: string[] = [];
  const trackers = new Map<number, Tracker>();
  for (const id of [1, 2, 3]) {
    const front = { path: `/dev/ublkb${id}` };
    trackers.set(id, { id, identity: `${id}`, device: `/dev/${id}`, front } as never);
  }
  const members = new Map([1, 2].map((id) => [id, { tracker: trackers.get(id) }]));
  const snapshots = new Map([["s", { id: "s", members } as unknown as Snapshot]]);
  const registry = {
    trackers,
    snapshots,
    snapshotOf: ({ id }: Tracker) =>
      [...snapshots.values()].find((snapshot) => snapshot.members.has(id)),
  };
  const end = (stallMs = 60_000, progress = async () => 0) =>
    endAll({
      registry,
      locks,
      endSnapshot: async ({ id }) => {
        await hangs(`snapshot ${id}`);
        snapshots.delete(id);
        done.push(`snapshot ${id}`);
      },
      detach: async ({ id }) => {
        await hangs(`device ${id}`);
        trackers.delete(id);
        done.push(`device ${id}`);
      },
      progress,
      stallMs,
    });
  return { locks, done, end, trackers, snapshots };
}

const never = new Promise<void>(() => undefined);

test("snapshots end before their devices, and nothing is left", async () => {
  const { done, end } = house();
  assert.equal(await end(), []);
  assert.equal([...done].sort(), ["device 1", "device 2", "device 3", "snapshot s"]);
  for (const id of [1, 2]) assert.ok(done.indexOf(`device ${id}`) > done.indexOf("snapshot s"));
});

test("a device that hangs is named and left; all others end", async () => {
  const { done, end } = house((what) => (what === "device 3" ? never : undefined));
  assert.equal(await end(500), ["the detach of /dev/3 from /dev/ublkb3 did not end"]);
  assert.equal([...done].sort(), ["device 1", "device 2", "snapshot s"]);
});

test("the wait for a hanging operation is bounded", async () => {
  const { locks, done, end } = house();
  const hung = locks.run([deviceLock({ identity: "3" })], { what: "detach" }, () => never);
  hung.catch(() => undefined);
  assert.equal(await end(500), ["the detach of /dev/3 from /dev/ublkb3 did not end"]);
  assert.not.ok(done.includes("device 3"));
  assert.is(done.length, 3);
});

test("what a running operation makes is ended, too", async () => {
  for (const isAlone of [false, true]) {
    const { locks, done, end, trackers, snapshots } = house();
    if (isAlone) {
      trackers.clear();
      snapshots.clear();
    }
    const attach = locks.run([deviceLock({ identity: "4" })], { what: "attach" }, async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const front = { path: "/dev/ublkb4" };
      trackers.set(4, { id: 4, identity: "4", device: "/dev/4", front } as never);
    });
    assert.equal(await end(), []);
    await attach;
    assert.ok(done.includes("device 4"));
    assert.is(trackers.size, 0);
  }
});

test("a snapshot that fails to end is named with its devices", async () => {
  const { end } = house((what) => {
    if (what === "snapshot s") throw new Error("its image does not stop");
    return undefined;
  });
  assert.equal(await end(), [
    "the end of snapshot s failed: its image does not stop",
    "the detach of /dev/1 from /dev/ublkb1 failed: it is in snapshot s",
    "the detach of /dev/2 from /dev/ublkb2 failed: it is in snapshot s",
  ]);
});

test("the end waits as long as there is progress", async () => {
  let written = 0;
  let finish: () => void = () => undefined;
  const flushed = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const { end } = house((what) => (what === "device 3" ? flushed : undefined));
  const progress = async () => {
    written++;
    if (written === 8) finish();
    return written;
  };
  assert.equal(await end(1_000, progress), []);
});

/** All of a house attached live; `refused` may not leave, `failing` does not. */
async function endLiveOf(
  of: ReturnType<typeof house>,
  [refused, failing]: number[],
  alone = false,
) {
  for (const tracker of of.trackers.values()) {
    Object.assign(tracker, { splice: { identity: `node ${tracker.id}` } });
  }
  const snapshotOf = ({ id }: Tracker) =>
    [...of.snapshots.values()].find(({ members }) => members.has(id));
  const destroy = async ({ id }: Snapshot) => {
    of.snapshots.delete(id);
    of.done.push(`snapshot ${id}`);
  };
  const assertMayLeave = async ({ id }: Tracker) => {
    if (id === refused) throw new Error(`${id} may not leave`);
  };
  const detach = async ({ id }: Tracker) => {
    if (id === failing) throw new Error(`${id} does not leave`);
    of.trackers.delete(id);
    of.done.push(`device ${id}`);
  };
  const held: boolean[] = [];
  const holdReturns = (isHeld: boolean) => void held.push(isHeld);
  const trackers = { assertMayLeave, detach, holdReturns };
  const stays = await endLive({ ...of, snapshotOf }, of.locks, { destroy }, trackers, alone);
  return { stays, held };
}

test("if one live device may not leave, all stay attached, with their snapshots", async () => {
  const refusing = house();
  assert.equal(await endLiveOf(refusing, [3]), { stays: ["3 may not leave"], held: [true, false] });
  assert.equal([refusing.done, refusing.trackers.size], [[], 3]);
  const free = house();
  assert.equal(await endLiveOf(free, []), { stays: [], held: [true] });
  assert.equal(free.done, ["snapshot s", "device 1", "device 2", "device 3"]);
});

test("a live device that fails to leave stops the rest, and the detached ones are named", async () => {
  const found = house();
  const { stays, held } = await endLiveOf(found, [0, 2]);
  assert.equal(stays, ["2 does not leave (detached before that: /dev/1)"]);
  assert.equal(held, [true, false]);
  assert.equal([...found.trackers.keys()], [2, 3]);
});

test("while the system goes down, each device that can leaves, and none is attached again", async () => {
  const found = house();
  const { stays, held } = await endLiveOf(found, [3, 2], true);
  assert.equal([stays, held], [["2 does not leave"], [true]]);
  assert.equal([...found.trackers.keys()], [2]);
});

test("a snapshot's operations lock one name, however its id is written", () => {
  assert.is(snapshotLock("ABC"), snapshotLock("abc"));
});

test.run();
