import { test } from "uvu";
import * as assert from "uvu/assert";
import { COUNT_INTERVAL_MS, differences, reportedFacts } from "../dist/events/differences.js";
import {
  type DeviceFacts,
  type Facts,
  NO_FACTS,
  type SnapshotFacts,
} from "../dist/events/facts.js";

const ID = "11111111-2222-3333-4444-555555555555";
const DEVICE: DeviceFacts = {
  front: "/dev/ublkb0",
  isLive: true,
  kind: "front",
  node: null,
  isLost: false,
  lostWhy: null,
  persistence: "off",
  persistenceWhy: null,
  generation: "g1",
  reason: "first_attach",
  capacityBytes: 4096,
  originalBytes: 4096,
};

function counted(count: number) {
  const none = { count: 0, atMs: 0, seen: 0 };
  return { writes_refused: { count, atMs: 0, seen: count }, writes_blocked: none, late_io: none };
}

function snapshot(given: Partial<SnapshotFacts> = {}): SnapshotFacts {
  const well = { devices: ["/dev/a"], isTaken: true, isPersistent: false, isResumed: false };
  return { ...well, stallUs: 7, counters: { "/dev/a": counted(0) }, ...given };
}

function facts(given: Partial<Facts> = {}): Facts {
  return { ...NO_FACTS, life: "1", ...given };
}

function device(given: Partial<DeviceFacts> = {}): Facts {
  return facts({ devices: { "/dev/a": { ...DEVICE, ...given } } });
}

function kinds(before: Facts, now: Facts, nowMs = 1): string[] {
  return differences(before, now, nowMs).map(({ event }) => event);
}

test("no change, no events", () => {
  const full = facts({
    devices: { "/dev/a": DEVICE },
    waiting: { "/dev/w": { front: "/dev/ublkb7", why: "away" } },
    snapshots: { [ID]: snapshot() },
    stalled: { 0: ["/dev/a"] },
    mistakes: ["x"],
    missing: { "/dev/m": { from: "f:1", why: "no" } },
  });
  assert.equal(kinds(full, full), []);
});

test("attach and detach are events", () => {
  assert.equal(differences(facts(), device(), 1), [
    {
      ...{ event: "attached", device: "/dev/a", front: "/dev/ublkb0", attach_kind: "front" },
      ...{ persistent: false, generation_id: "g1", generation_reason: "first_attach" },
    },
  ]);
  assert.equal(kinds(device(), facts()), ["detached"]);
});

test("each problem of a device is reported once, even if it exists from the start", () => {
  const troubles: [string, Partial<DeviceFacts>][] = [
    ["front_ended", { isLive: false }],
    ["splice_lost", { isLost: true, node: "/dev/mapper/a", lostWhy: "reloaded" }],
    ["persistence_failed", { persistence: "failed", persistenceWhy: "EIO" }],
    ["capacity_changed", { originalBytes: 8192, sizeWhy: "it cannot grow" }],
  ];
  for (const [kind, trouble] of troubles) {
    assert.equal(kinds(device(), device(trouble)), [kind]);
    assert.equal(kinds(device(trouble), device(trouble)), []);
    assert.equal(kinds(facts(), device(trouble)), ["attached", kind]);
  }
  const began = { generation: "g2", reason: "foreign_write" } as const;
  assert.equal(kinds(device(), device(began)), ["generation_began"]);
  assert.equal(kinds(device({ persistence: "on" }), device({ persistence: "off" })), []);
});

test("a front that grows is no problem, one that does not follow says why, and each new reason", () => {
  const original = { originalBytes: 8192, sizeWhy: null };
  assert.equal(kinds(device(), device(original)), [], "it is about to grow");
  const now = { ...original, capacityBytes: 8192, generation: "g2" };
  const [grown, began] = differences(device(original), device(now), 1);
  const sizes = { capacity_bytes: 8192, capacity_before_bytes: 4096 };
  assert.equal(grown, { event: "front_grown", device: "/dev/a", front: "/dev/ublkb0", ...sizes });
  assert.is(began?.event, "generation_began");
  const first = device({ ...original, sizeWhy: "in a snapshot" });
  const second = device({ ...original, sizeWhy: "the kernel refuses it" });
  assert.equal(kinds(first, second), ["capacity_changed"]);
  assert.equal(kinds(second, device()), [], "it has its size again");
});

test("a renamed node is the same device", () => {
  const now = facts({ devices: { "/dev/b": DEVICE } });
  assert.equal(differences(device(), now, 1), [
    { event: "renamed", device: "/dev/b", front: "/dev/ublkb0", name_before: "/dev/a" },
  ]);
  const other = facts({ devices: { "/dev/b": { ...DEVICE, generation: "g9" } } });
  assert.equal(kinds(device(), other), ["attached", "detached"]);
});

test("the next daemon reports what it resumed, what waits, and what is lost", () => {
  const before = facts({
    devices: { "/dev/a": DEVICE, "/dev/w": { ...DEVICE, front: "/dev/ublkb1" } },
    snapshots: { [ID]: snapshot(), lost: snapshot() },
  });
  const waiting = { "/dev/w": { front: "/dev/ublkb1", why: "away" } };
  const next = facts({
    life: "2",
    devices: { "/dev/a": DEVICE },
    waiting,
    snapshots: { [ID]: snapshot({ isResumed: true }) },
  });
  assert.equal(kinds(before, next), [
    "resumed",
    "front_waiting",
    "snapshot_lost",
    "snapshot_resumed",
  ]);
  const back = facts({ ...next, devices: before.devices, waiting: {} });
  assert.equal(kinds(next, back), ["resumed"]);
  assert.equal(kinds(next, facts({ ...next, waiting: {} })), ["detached"]);
  const otherwise = { "/dev/w": { front: "/dev/ublkb1", why: "busy" } };
  assert.equal(kinds(next, facts({ ...next, waiting: otherwise })), ["front_waiting"]);
});

test("a volume that cannot be attached again is reported once for each reason", () => {
  const before = device();
  const untracked = {
    "/dev/a": { node: "/dev/mapper/a", why: "LVM is at work", isGivenUp: false },
  };
  const away = facts({ untracked });
  assert.equal(kinds(before, away), ["untracked", "detached"]);
  assert.equal(kinds(away, away), []);
  const why = "3 daemons have ended while attaching it";
  const otherwise = { "/dev/a": { node: "/dev/mapper/a", why, isGivenUp: true } };
  const [reported, ...more] = differences(away, facts({ untracked: otherwise }), 0);
  assert.equal(more, []);
  assert.equal(reported, {
    ...{ event: "untracked", device: "/dev/a", node: "/dev/mapper/a" },
    ...{ why, given_up: true },
  });
  assert.equal(kinds(away, facts({ devices: before.devices })), ["attached"]);
});

test("create, take and destroy of a snapshot are events", () => {
  const created = facts({ snapshots: { [ID]: snapshot({ isTaken: false }) } });
  const taken = facts({ snapshots: { [ID]: snapshot({ isPersistent: true }) } });
  assert.equal(kinds(facts(), created), ["snapshot_created"]);
  assert.equal(kinds(created, taken), ["snapshot_taken"]);
  assert.equal(kinds(facts(), taken), ["snapshot_created", "snapshot_taken"]);
  assert.equal(kinds(taken, facts()), ["snapshot_destroyed"]);
  const given = facts({ snapshots: { [ID]: snapshot({ isPersistent: false }) } });
  assert.equal(kinds(taken, given), ["snapshot_not_persistent"]);
  // After a reboot nothing is known of the earlier daemon.
  const old = facts({ snapshots: { [ID]: snapshot({ isResumed: true }) } });
  assert.equal(kinds(NO_FACTS, old), ["snapshot_resumed"]);
});

test("counts are reported at once, then in sums, and none twice", () => {
  const at = (count: number, life = "1") =>
    facts({ life, snapshots: { [ID]: snapshot({ counters: { "/dev/a": counted(count) } }) } });
  let known = at(0);
  const reported: (readonly [number, number])[] = [];
  const look = (count: number, nowMs: number, life = "1") => {
    for (const event of differences(known, at(count, life), nowMs)) {
      if (event.event === "writes_refused") reported.push([nowMs, event.count]);
    }
    known = reportedFacts(known, at(count, life), nowMs);
  };
  const later = 1000 + COUNT_INTERVAL_MS;
  look(3, 1000);
  look(4, 2000);
  look(9, later - 1);
  look(9, later);
  look(9, later + COUNT_INTERVAL_MS);
  // A reactor that does not answer shows no count.
  look(0, later + 2 * COUNT_INTERVAL_MS);
  look(9, later + 3 * COUNT_INTERVAL_MS);
  // The next daemon counts from the beginning.
  look(2, later + 4 * COUNT_INTERVAL_MS, "2");
  assert.equal(reported, [
    [1000, 3],
    [later, 6],
    [later + 4 * COUNT_INTERVAL_MS, 2],
  ]);
});

test("failed requests of a front are reported at once, then in sums, and anew by the next daemon", () => {
  const at = (count: number, life = "1") => {
    const errors = { count, atMs: 0, seen: count };
    return facts({ life, devices: { "/dev/a": { ...DEVICE, errors } } });
  };
  let known = facts({ devices: { "/dev/a": DEVICE } });
  const reported: (readonly [number, number])[] = [];
  const look = (count: number, nowMs: number, life = "1") => {
    for (const event of differences(known, at(count, life), nowMs)) {
      if (event.event === "front_errors") reported.push([nowMs, event.count]);
    }
    known = reportedFacts(known, at(count, life), nowMs);
  };
  const later = 1000 + COUNT_INTERVAL_MS;
  look(0, 500);
  look(1, 1000);
  look(5, 2000);
  look(5, later);
  // A reactor that does not answer shows no count.
  look(0, later + 1000);
  look(5, later + 2 * COUNT_INTERVAL_MS);
  look(7, later + 3 * COUNT_INTERVAL_MS, "2");
  assert.equal(reported, [
    [1000, 1],
    [later, 4],
    [later + 3 * COUNT_INTERVAL_MS, 7],
  ]);
});

test("pending counts are reported when their snapshot ends, or carried on", () => {
  const at = (count: number, life = "1") =>
    facts({ life, snapshots: { [ID]: snapshot({ counters: { "/dev/a": counted(count) } }) } });
  let known = at(0);
  for (const [count, nowMs] of [
    [3, 1000],
    [9, 2000],
    [0, 3000],
  ] as const) {
    known = reportedFacts(known, at(count), nowMs);
  }
  const rest = { event: "writes_refused", id: ID, device: "/dev/a", count: 6 };
  const devices = ["/dev/a"];
  assert.equal(differences(known, facts(), 4000), [
    rest,
    { event: "snapshot_destroyed", id: ID, devices },
  ]);
  assert.equal(differences(known, facts({ life: "2" }), 4000), [
    rest,
    { event: "snapshot_lost", id: ID, devices },
  ]);
  const next = reportedFacts(known, at(4, "2"), 4000);
  const due = differences(next, at(4, "2"), 1000 + COUNT_INTERVAL_MS);
  assert.equal(due, [{ ...rest, count: 10 }]);
});

test("stalled reactors, and mistakes of the configuration, are events", () => {
  const stalled = facts({ stalled: { 1: ["/dev/a"] } });
  assert.equal(differences(facts(), stalled, 1), [
    { event: "reactor_stalled", reactor: 1, devices: ["/dev/a"] },
  ]);
  assert.equal(kinds(stalled, facts()), ["reactor_turns"]);
  assert.equal(kinds(stalled, facts({ life: "2" })), []);
  const mistaken = facts({ mistakes: ["line 3: no such key"] });
  assert.equal(kinds(facts(), mistaken), ["config_mistake"]);
  assert.equal(kinds(mistaken, facts()), []);
  const missing = facts({ missing: { "/dev/m": { from: "blksnap.toml:3", why: "not there" } } });
  assert.equal(differences(facts(), missing, 1), [
    { event: "device_missing", device: "/dev/m", from: "blksnap.toml:3", why: "not there" },
  ]);
});

test.run();
