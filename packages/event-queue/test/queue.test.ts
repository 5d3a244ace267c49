import {
  EventQueue,
  EventQueueError,
  READER_NAMES_MAX,
  type WaitResult,
} from "@blksnap/event-queue";
import { test } from "uvu";
import * as assert from "uvu/assert";

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    assert.instance(error, EventQueueError);
    return (error as EventQueueError).code;
  }
  return "no error";
};
const eventOf = <E>(result: WaitResult<E>): E | string =>
  result.kind === "event" ? result.record.event : result.kind;

test("each event goes to one waiter, first come, first served", async () => {
  const queue = new EventQueue<string>();
  const waits = [queue.wait(), queue.wait(), queue.wait()];
  queue.push("a");
  queue.push("b");
  queue.push("c");
  assert.equal((await Promise.all(waits)).map(eventOf), ["a", "b", "c"]);
  assert.is(queue.pendingCount(), 0);
});

test("events wait for readers, with consecutive numbers and rising times", async () => {
  const queue = new EventQueue<number>();
  for (let i = 0; i < 5; i++) queue.push(i);
  let lastNs = 0;
  for (let i = 0; i < 5; i++) {
    const result = await queue.wait(0);
    if (result.kind !== "event") throw new Error(result.kind);
    assert.is(result.record.sequence, i + 1);
    assert.is(result.missed, 0);
    assert.ok(result.record.timeNs >= lastNs);
    lastNs = result.record.timeNs;
  }
  assert.equal(await queue.wait(0), { kind: "timeout" });
});

test("a timeout takes real milliseconds and nothing from the queue", async () => {
  const queue = new EventQueue<string>();
  const beforeMs = performance.now();
  assert.equal(await queue.wait(40), { kind: "timeout" });
  const tookMs = performance.now() - beforeMs;
  assert.ok(tookMs >= 39, `${tookMs} ms`);
  queue.push("kept");
  assert.is(eventOf(await queue.wait(0)), "kept");
});

test("a timeout larger than setTimeout can count does not fire at once", async () => {
  const queue = new EventQueue<string>();
  const wait = queue.wait(2 ** 32 - 1);
  await new Promise((done) => setTimeout(done, 20));
  queue.push("later");
  assert.is(eventOf(await wait), "later");
});

test("an abort ends a wait and leaves the event to the next reader", async () => {
  const queue = new EventQueue<string>();
  const control = new AbortController();
  const wait = queue.wait(undefined, control.signal);
  const second = queue.wait();
  control.abort();
  queue.push("a");
  assert.is((await wait).kind, "aborted");
  assert.is(eventOf(await second), "a");
  queue.push("b");
  assert.is((await queue.wait(0, control.signal)).kind, "aborted");
  assert.is(eventOf(await queue.wait(0)), "b");
});

test("close wakes all waiters; what was pushed before is still delivered", async () => {
  const queue = new EventQueue<string>();
  const waits = [queue.wait(), queue.wait(60_000)];
  queue.close();
  assert.equal((await Promise.all(waits)).map(eventOf), ["closed", "closed"]);
  assert.is(
    codeOf(() => queue.push("late")),
    "QUEUE_CLOSED",
  );

  const other = new EventQueue<string>();
  other.push("last words");
  other.close();
  other.close();
  assert.is(eventOf(await other.wait()), "last words");
  assert.is((await other.wait()).kind, "closed");
});

test("a full queue overwrites the oldest and says how many were lost", async () => {
  const queue = new EventQueue<number>({ capacity: 4 });
  for (let i = 1; i <= 10; i++) queue.push(i);
  assert.is(queue.pendingCount(), 4);
  assert.is(queue.oldestSequence, 7);
  const first = await queue.wait();
  assert.ok(first.kind === "event" && first.missed === 6 && first.record.event === 7);
  const second = await queue.wait();
  assert.ok(second.kind === "event" && second.missed === 0 && second.record.event === 8);
});

test("arguments out of range are refused", async () => {
  assert.is(
    codeOf(() => new EventQueue({ capacity: 0 })),
    "ARGUMENT_INVALID",
  );
  assert.is(
    codeOf(() => new EventQueue({ capacity: 1.5 })),
    "ARGUMENT_INVALID",
  );
  assert.is(
    codeOf(() => new EventQueue({ firstSequence: -1 })),
    "ARGUMENT_INVALID",
  );
  const queue = new EventQueue<number>();
  assert.is(
    codeOf(() => queue.subscribe({ fromSequence: 2 })),
    "SEQUENCE_UNKNOWN",
  );
  assert.is(
    codeOf(() => queue.subscribe({ fromSequence: Number.NaN })),
    "ARGUMENT_INVALID",
  );
  for (const timeoutMs of [-1, Number.NaN]) {
    const refused = await queue.wait(timeoutMs).catch((error: EventQueueError) => error.code);
    assert.is(refused, "ARGUMENT_INVALID");
  }
});

test("the number of waits is bounded", async () => {
  const queue = new EventQueue<number>();
  const waits = Array.from({ length: 1024 }, () => queue.wait());
  const refused = await queue.wait().catch((error: EventQueueError) => error.code);
  assert.is(refused, "TOO_MANY_READERS");
  queue.close();
  await Promise.all(waits);
});

test("readers with names take nothing from each other", async () => {
  const queue = new EventQueue<string>({ capacity: 3 });
  const backup = queue.wait(undefined, undefined, "backup");
  queue.push("a");
  assert.is(eventOf(await backup), "a");
  assert.is(eventOf(await queue.wait(0)), "a");
  for (const event of ["b", "c", "d", "e"]) queue.push(event);
  assert.is(eventOf(await queue.wait(0, undefined, "monitor")), "c", "the oldest that is held");
  const late = await queue.wait(0, undefined, "backup");
  assert.is(late.kind === "event" && late.missed, 1);
  assert.equal(queue.cursors, { "": 2, backup: 4, monitor: 4 });
  assert.is(queue.unreadSequence, 3);
  assert.is(queue.pendingCount("backup"), 2);

  const next = new EventQueue<string>({ firstSequence: 3, cursors: queue.cursors });
  for (const event of ["c", "d", "e"]) next.push(event);
  assert.is(eventOf(await next.wait(0, undefined, "backup")), "d");
  assert.is(eventOf(await next.wait(0)), "c");
});

test("names of readers are bounded", async () => {
  const queue = new EventQueue<string>();
  for (let i = 0; i < READER_NAMES_MAX; i++) await queue.wait(0, undefined, `reader ${i}`);
  await queue.wait(0, undefined, "reader 0");
  const refused = await queue.wait(0, undefined, "one more").catch((error) => error);
  assert.is(refused.code, "TOO_MANY_READERS");
  assert.is((await queue.wait(0)).kind, "timeout");
});

test.run();
