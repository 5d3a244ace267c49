import { test } from "uvu";
import * as assert from "uvu/assert";
import { SnapshotEvents } from "../dist/snapshot/events.js";

const corrupted = (device: string) =>
  ({ type: "corrupted", device, major: 7, minor: 1, errno: 28 }) as const;
const never = new AbortController().signal;

test("what nobody has taken is handed to the next daemon with its numbers and times", async () => {
  let saves = 0;
  const first = new SnapshotEvents([], 1, () => saves++);
  first.push(corrupted("/dev/a"));
  first.push(corrupted("/dev/b"));
  first.push(corrupted("/dev/c"));
  const taken = await first.wait(0, never);
  assert.equal((taken as { device: string }).device, "/dev/a");
  assert.is(first.pending.length, 2);
  assert.ok(saves >= 4);

  const kept = JSON.parse(JSON.stringify(first.pending)) as typeof first.pending;
  const second = new SnapshotEvents(kept, first.next, () => undefined);
  const next = (await second.wait(0, never)) as {
    device: string;
    sequence: number;
    time_ns: number;
  };
  assert.is(next.device, "/dev/b");
  assert.is(next.sequence, 2);
  assert.is(next.time_ns, kept[0]?.timeNs);
  second.push(corrupted("/dev/d"));
  assert.equal(
    second.pending.map(({ sequence }) => sequence),
    [3, 4],
  );
});

test("a daemon that inherits nothing goes on counting", () => {
  const events = new SnapshotEvents([], 9, () => undefined);
  events.push(corrupted("/dev/a"));
  assert.is(events.pending[0]?.sequence, 9);
});

test("an event that a waiter takes at once is not pending", async () => {
  const events = new SnapshotEvents([], 1, () => undefined);
  const waiting = events.wait(60_000, never);
  events.push(corrupted("/dev/a"));
  assert.is(((await waiting) as { sequence: number }).sequence, 1);
  assert.is(events.pending.length, 0);
});

test("closing wakes waiters, and later events are dropped", async () => {
  const events = new SnapshotEvents([], 1, () => undefined);
  const waiting = events.wait(60_000, never);
  events.close();
  assert.is(await waiting, "closed");
  events.push(corrupted("/dev/a"));
  assert.is(events.pending.length, 0);
});

test("what is only for the log is not told to users", async () => {
  const events = new SnapshotEvents([], 1, () => undefined);
  const usage = { usedBytes: 1, limitBytes: 2 };
  events.push({ type: "growth_late", waitedMs: 1, freeBytes: 0, ...usage });
  assert.is(await events.wait(0, never), undefined);
});

test.run();
