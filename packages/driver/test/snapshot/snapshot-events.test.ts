import { eventSchemas } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SnapshotEvents } from "../../dist/snapshot/events.js";

const corrupted = (device: string) =>
  ({ type: "corrupted", device, major: 7, minor: 1, errno: 28 }) as const;
const NOTHING = { events: [], nextEvent: 1 };
const sequenceOf = async (event: Promise<unknown>) =>
  ((await event) as { sequence: number } | undefined)?.sequence;
const never = new AbortController().signal;

test("unread events pass to the next daemon with their numbers and times", async () => {
  let saves = 0;
  const first = new SnapshotEvents(NOTHING, () => saves++);
  first.push(corrupted("/dev/a"));
  first.push(corrupted("/dev/b"));
  first.push(corrupted("/dev/c"));
  const taken = await first.wait(0, never);
  assert.equal((taken as { device: string }).device, "/dev/a");
  assert.is(first.pendingCount, 2);
  assert.ok(saves >= 4);

  const kept = JSON.parse(JSON.stringify(first.record)) as typeof first.record;
  const second = new SnapshotEvents(kept, () => undefined);
  const next = (await second.wait(0, never)) as {
    device: string;
    sequence: number;
    time_us: number;
  };
  assert.is(next.device, "/dev/b");
  assert.is(next.sequence, 2);
  assert.is(next.time_us, Math.floor(kept.events[0]!.timeNs / 1000));
  second.push(corrupted("/dev/d"));
  assert.equal(
    second.record.events.map(({ sequence }) => sequence),
    [3, 4],
  );
});

test("a daemon that inherits no events continues their numbers", () => {
  const events = new SnapshotEvents({ events: [], nextEvent: 9 }, () => undefined);
  events.push(corrupted("/dev/a"));
  assert.is(events.record.events[0]?.sequence, 9);
});

test("an event that a waiter takes at once is not pending", async () => {
  const events = new SnapshotEvents(NOTHING, () => undefined);
  const waiting = events.wait(60_000, never);
  events.push(corrupted("/dev/a"));
  assert.is(((await waiting) as { sequence: number }).sequence, 1);
  assert.is(events.record.events.length, 0);
});

test("closing wakes waiters, and later events are dropped", async () => {
  const events = new SnapshotEvents(NOTHING, () => undefined);
  const waiting = events.wait(60_000, never);
  events.close();
  assert.is(await waiting, "closed");
  events.push(corrupted("/dev/a"));
  assert.is(events.record.events.length, 0);
});

test("events for the log are not shown to users", async () => {
  const events = new SnapshotEvents(NOTHING, () => undefined);
  const usage = { usedBytes: 1, limitBytes: 2 };
  events.push({ type: "growth_late", waitedMs: 1, freeBytes: 0, ...usage });
  assert.is(await events.wait(0, never), undefined);
});

test("listing takes no events, and each named reader gets all of them, even from the next daemon", async () => {
  const first = new SnapshotEvents(NOTHING, () => undefined);
  for (const device of ["/dev/a", "/dev/b", "/dev/c"]) first.push(corrupted(device));
  assert.is(first.list().length, 3);
  assert.is(await sequenceOf(first.wait(0, never)), 1);
  assert.is(await sequenceOf(first.wait(0, never)), 2);
  assert.is(await sequenceOf(first.wait(0, never, "backup")), 1);
  assert.equal(
    first.list().map(({ sequence }) => sequence),
    [1, 2, 3],
  );
  assert.is(first.pendingCount, 1);
  assert.is(first.record.events.length, 2, "the backup has not taken 2 and 3");

  const second = new SnapshotEvents(JSON.parse(JSON.stringify(first.record)), () => undefined);
  assert.is(await sequenceOf(second.wait(0, never, "backup")), 2);
  assert.is(await sequenceOf(second.wait(0, never)), 3);
  assert.is(await sequenceOf(second.wait(0, never, "backup")), 3);
  assert.is(second.record.events.length, 0);
  assert.equal(new SnapshotEvents(NOTHING, () => undefined).list(), []);
});

test("each kind of event has the fields of its schema, and those for the log are not shown", () => {
  const events = new SnapshotEvents(NOTHING, () => undefined);
  const space = { usedBytes: 2, limitBytes: 3, requestedSectors: 4, freeBytes: 5 } as const;
  const store = { device: "/dev/a", store: "/b" };
  events.push(corrupted("/dev/a"));
  events.push({ type: "no_space", ...space });
  events.push({ type: "low_free_space", ...space, capacityBytes: 6, reason: "growth_failed" });
  events.push({ type: "store_hung", ...store });
  events.push({ type: "store_answered", ...store });
  events.push({ type: "growth_late", waitedMs: 1, ...space });
  const told = events.list();
  const wanted = eventSchemas.EVENTS.filter((schema) => schema.properties.event.const !== "missed");
  assert.equal(
    told.map((event) => Object.keys(event).toSorted()),
    wanted.map(({ required }) => [...required].toSorted()),
  );
  assert.equal(
    told.map(({ event }) => event),
    wanted.map(({ properties }) => properties.event.const),
  );
});

test.run();
