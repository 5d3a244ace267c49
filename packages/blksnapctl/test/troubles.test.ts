/** Problems of devices in status. */
import type { SnapshotStatus, TrackerStatus } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { stateOf, troublesOf } from "../dist/troubles.js";

const front = "/dev/ublkb0";
const tracker = {
  device: "/dev/sdb",
  front,
  front_live: true,
  splice: null,
  snapshot_id: "s",
  original_capacity_bytes: 1,
  error_code: 0,
  persistence: { state: "off", why: null },
  io: { errors: 0 },
} as unknown as TrackerStatus;
const member = { front, error_code: 0, lost_bytes: 0, blocked_writes_now: 0, refused_writes: 0 };

function troubles(change: object, memberChange: object = {}, stores: object[] = []) {
  const snapshot = { id: "s", devices: [{ ...member, ...memberChange }], stores };
  return troublesOf({ ...tracker, ...change } as TrackerStatus, [
    snapshot as unknown as SnapshotStatus,
  ]);
}

test("a healthy device is ok, even after a snapshot that lost blocks is destroyed", () => {
  assert.is(stateOf(troubles({})), "ok");
  assert.is(stateOf(troubles({ snapshot_id: null, error_code: -28 })), "ok");
});

test("refused and waiting writes come before what the image has lost", () => {
  const found = troubles(
    {},
    { refused_writes: 2, blocked_writes_now: 1, error_code: -28, lost_bytes: 8 },
  );
  assert.equal(
    found.map(({ state }) => state),
    ["REFUSING", "BLOCKED", "LOST"],
  );
  assert.match(found[0]!.what, "2 writes failed for lack of space");
  for (const { hint } of found) assert.match(hint, "larger --limit");
});

test("a failed disk is not cured by more room: its stores and the device are named", () => {
  const stores = [{ path: "/dev/sdx", hung: false }];
  const lost = { device: "/dev/sdb", error_code: -5, lost_bytes: 8 };
  const [{ hint } = { hint: "" }] = troubles({}, lost, stores);
  assert.match(hint, "See dmesg for which disk has failed, of /dev/sdb, /dev/sdx; ");
  assert.not.match(hint, "--limit");
});

test("a store that does not answer is named, before what was lost through it", () => {
  const stores = [
    { path: "/dev/sdx", hung: false },
    { path: "/dev/sdy", hung: true },
  ];
  const found = troubles({}, { error_code: -110, lost_bytes: 8 }, stores);
  assert.equal(
    found.map(({ state }) => state),
    ["HUNG", "LOST"],
  );
  assert.is(found[0]!.what, "the store /dev/sdy does not answer");
});

test("errors of the front are counted once, without refused writes", () => {
  assert.is(stateOf(troubles({ io: { errors: 1 } })), "ERRORS");
  assert.equal(
    troubles({ io: { errors: 2 } }, { refused_writes: 2 }).map(({ state }) => state),
    ["REFUSING"],
  );
});

test("an original that is gone, and a map that is not kept", () => {
  const persistence = { state: "failed", why: "EIO" };
  const found = troubles({ original_capacity_bytes: 0, persistence });
  assert.equal(
    found.map(({ state }) => state),
    ["GONE", "UNKEPT"],
  );
});

test("a front that has another size than its original says what to do", () => {
  const capacity_why = "this kernel cannot resize it: detach it";
  const [found] = troubles({ capacity_bytes: 4096, original_capacity_bytes: 8192, capacity_why });
  assert.is(found?.state, "RESIZED");
  assert.is(found?.what, "the original has 8.0 KiB now, the front 4.0 KiB");
  assert.is(found?.hint, "This kernel cannot resize it: detach it");
  assert.is(stateOf(troubles({ capacity_why: null })), "ok");
  assert.is(stateOf(troubles({ original_capacity_bytes: 0, capacity_why })), "GONE");
});

test("an original that has grown does not hide what fails, one that is shorter comes first", () => {
  const statesOf = (original_capacity_bytes: number) => {
    const sizes = { capacity_bytes: 4096, original_capacity_bytes, capacity_why: "why" };
    const found = troubles({ ...sizes, io: { errors: 1 } }, { refused_writes: 1 });
    return found.map(({ state }) => state);
  };
  assert.equal(statesOf(8192), ["REFUSING", "RESIZED"]);
  assert.equal(statesOf(2048), ["RESIZED", "REFUSING"]);
});

test("a live attach that lost its node says why, and what to do", () => {
  const why = "another program gave it another table";
  const splice = { node: "/dev/mapper/vg-data", state: "lost", why };
  const [first, second] = troubles({ splice }, { error_code: -116 });
  assert.equal([first?.state, second?.state], ["UNTRACKED", "LOST"]);
  assert.match(first!.what, `/dev/mapper/vg-data no longer leads to the front: ${why}`);
  assert.match(
    first!.hint,
    /^Destroy its snapshot; where it is still not tracked after a minute, /,
  );
  assert.not.match(second!.hint, "--limit");
  const [alone] = troubles({ splice, snapshot_id: null });
  assert.match(alone!.hint, /^Where it is still not tracked after a minute, detach/);
  assert.is(stateOf(troubles({ splice: { ...splice, state: "on", why: null } })), "ok");
});

test("a front that another program has ended comes first, and its image is not blamed on space", () => {
  const found = troubles({ front_live: false }, { error_code: -19 });
  assert.equal(
    found.map(({ state }) => state),
    ["ENDED", "LOST"],
  );
  assert.match(found[0]!.what, front);
  assert.match(found[0]!.hint, "attach it again");
  assert.not.match(found[1]!.hint, "--limit");
});

test.run();
