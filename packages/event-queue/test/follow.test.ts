import { type Delivery, EventQueue, type EventQueueError } from "@blksnap/event-queue";
import { test } from "uvu";
import * as assert from "uvu/assert";

const collect = async <E>(items: AsyncIterable<Delivery<E>>): Promise<E[]> => {
  const events: E[] = [];
  for await (const item of items) events.push(item.record.event);
  return events;
};

test("every follower sees every event, even those that a wait consumed", async () => {
  const queue = new EventQueue<string>();
  const all = [collect(queue.subscribe()), collect(queue.subscribe())];
  queue.push("a");
  await queue.wait();
  queue.push("b");
  queue.close();
  assert.equal(await Promise.all(all), [
    ["a", "b"],
    ["a", "b"],
  ]);
});

test("the position is taken when subscribing, not when reading", async () => {
  const queue = new EventQueue<string>();
  queue.push("before");
  const follower = queue.subscribe();
  queue.push("after");
  assert.is((await follower.next()).value?.record.event, "after");
});

test("a change from wait to follow loses nothing", async () => {
  const queue = new EventQueue<string>();
  for (const event of ["a", "b", "c"]) queue.push(event);
  const taken = await queue.wait();
  if (taken.kind !== "event") throw new Error(taken.kind);
  const follower = queue.subscribe({ fromSequence: taken.record.sequence + 1 });
  queue.push("d");
  queue.close();
  assert.equal(await collect(follower), ["b", "c", "d"]);
  assert.is(follower.cursor, queue.nextSequence);
});

test("a slow follower learns how many events it missed", async () => {
  const queue = new EventQueue<number>({ capacity: 3 });
  const follower = queue.subscribe();
  for (let i = 1; i <= 8; i++) queue.push(i);
  const first = await follower.next();
  assert.is(first.value?.missed, 5);
  assert.is(first.value?.record.event, 6);
  assert.is((await follower.next()).value?.missed, 0);
});

test("leaving the loop, an abort and a close end the iteration", async () => {
  const queue = new EventQueue<number>();
  queue.push(1);
  for await (const item of queue.subscribe({ fromSequence: 1 })) {
    assert.is(item.record.event, 1);
    break;
  }
  const control = new AbortController();
  const aborted = collect(queue.subscribe({ signal: control.signal }));
  control.abort();
  assert.equal(await aborted, []);
  assert.equal(await collect(queue.subscribe({ signal: control.signal })), []);
  queue.close();
  assert.equal(await collect(queue.subscribe()), []);
  assert.equal(await collect(queue.subscribe({ fromSequence: 1 })), [1]);
});

test("overlapping next() calls are answered in order and bounded", async () => {
  const queue = new EventQueue<number>();
  const follower = queue.subscribe();
  const calls = Array.from({ length: 1024 }, () => follower.next());
  const refused = await follower.next().catch((error: EventQueueError) => error.code);
  assert.is(refused, "TOO_MANY_READERS");
  queue.push(1);
  queue.push(2);
  await follower.return();
  const results = await Promise.all(calls);
  assert.is(results[0].value?.record.event, 1);
  assert.is(results[1].value?.record.event, 2);
  assert.ok(results.slice(2).every((result) => result.done));
});

test("an event pushed while readers are woken reaches everyone in order", async () => {
  const queue = new EventQueue<number>();
  const answers: Promise<void>[] = [];
  answers.push(
    queue.wait().then(() => {
      queue.push(2);
    }),
  );
  const seen = collect(queue.subscribe());
  queue.push(1);
  await Promise.all(answers);
  queue.close();
  assert.equal(await seen, [1, 2]);
});

test.run();
