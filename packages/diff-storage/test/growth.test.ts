import { type DiffStorageEvent, SlotAllocator, slotStore } from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ManualClock, settle } from "../dist/testing/clock.js";
import { type FakeOutcome, FakeStore } from "../dist/testing/fake-store.js";
import { failsWith, makeAllocator, SLOT_BYTES, takeAll } from "./support.js";

const PORTION = { portionBytes: 16 * SLOT_BYTES };
const typesOf = (events: readonly DiffStorageEvent[]): string[] => events.map(({ type }) => type);

test("growth starts when half a portion is left, ahead of need", async () => {
  const { allocator, clock } = await makeAllocator((clock) => [new FakeStore({ clock })], PORTION);
  for (let i = 0; i < 7; i++) allocator.allocateExtent(1);
  await clock.advance(0);
  assert.is(allocator.stats().capacityBytes, 16 * SLOT_BYTES);
  allocator.allocateExtent(1);
  await clock.advance(0);
  assert.is(allocator.stats().capacityBytes, 32 * SLOT_BYTES);
  assert.is(allocator.stats().freeBytes, 24 * SLOT_BYTES);
});

test("requests for slots during growth wait and are notified", async () => {
  let slow = false;
  const { allocator, clock } = await makeAllocator(
    (clock) => [new FakeStore({ clock, onPreallocate: () => ({ delayMs: slow ? 500 : 0 }) })],
    PORTION,
  );
  slow = true;
  assert.is(takeAll(allocator).answer, "wait");
  let changes = 0;
  const stop = allocator.onChange(() => {
    changes += 1;
  });
  const first = allocator.allocateExtentWhenReady(2);
  const second = allocator.allocateExtentWhenReady(2);
  assert.is(allocator.stats().waiting, 2);
  await clock.advance(499);
  assert.is(changes, 0);
  await clock.advance(1);
  assert.equal(await first, { firstSlot: 16, count: 2 });
  assert.equal(await second, { firstSlot: 18, count: 1 });
  assert.ok(changes >= 1);
  stop();
});

test("an aborted wait takes nothing", async () => {
  let slow = false;
  const { allocator, clock } = await makeAllocator(
    (clock) => [new FakeStore({ clock, onPreallocate: () => ({ delayMs: slow ? 500 : 0 }) })],
    PORTION,
  );
  slow = true;
  takeAll(allocator);
  const control = new AbortController();
  const wait = allocator.allocateExtentWhenReady(1, control.signal);
  control.abort();
  assert.is(await wait, "full");
  await clock.advance(500);
  assert.is(allocator.stats().allocatedBytes, 16 * SLOT_BYTES);
});

test("a failed growth is retried after growing pauses, and reported", async () => {
  let broken = false;
  const attempts: number[] = [];
  const { allocator, clock, events } = await makeAllocator((clock) => {
    const onPreallocate = (): FakeOutcome => {
      attempts.push(clock.nowMs());
      return broken ? { delayMs: 0, errnoName: "EIO" } : { delayMs: 0 };
    };
    return [new FakeStore({ clock, onPreallocate })];
  }, PORTION);
  attempts.length = 0;
  broken = true;
  for (let i = 0; i < 8; i++) allocator.allocateExtent(1);
  await clock.advance(1000);
  assert.equal(attempts, [0, 100, 300, 700]);
  assert.equal(typesOf(events), [
    "growth_failed",
    "low_free_space",
    "growth_failed",
    "growth_failed",
    "growth_failed",
  ]);
  assert.ok(events[1].type === "low_free_space" && events[1].reason === "growth_failed");
  assert.instance(allocator.stats().stores[0].lastError, Error);
  broken = false;
  await clock.advance(1000);
  assert.is(events.at(-1)!.type, "growth_recovered");
  assert.ok(allocator.stats().freeBytes > 8 * SLOT_BYTES);
  assert.is(allocator.stats().stores[0].lastError, undefined);
});

test("the next store takes over from one that fails", async () => {
  let broken = false;
  const { allocator, clock } = await makeAllocator(
    (clock) => [
      new FakeStore({
        clock,
        onPreallocate: () => (broken ? { delayMs: 0, errnoName: "EIO" } : { delayMs: 0 }),
      }),
      new FakeStore({ clock }),
    ],
    PORTION,
  );
  broken = true;
  takeAll(allocator);
  await clock.advance(0);
  const { slots } = takeAll(allocator);
  assert.ok(slots.length > 0);
  assert.ok(slots.every((slot) => slotStore(slot) === 1));
});

test("the rest of a nearly full disk gets used", async () => {
  const { allocator, clock } = await makeAllocator(
    (clock) => [new FakeStore({ clock, diskBytes: 27 * SLOT_BYTES })],
    PORTION,
  );
  let taken = 0;
  for (let i = 0; i < 60; i++) {
    taken += takeAll(allocator).slots.length;
    await clock.advance(100);
  }
  assert.is(taken, 27);
});

test("after the time limit the answer is full, while the growth continues", async () => {
  let delayMs = 0;
  const { allocator, clock, events } = await makeAllocator(
    (clock) => [new FakeStore({ clock, onPreallocate: () => ({ delayMs }) })],
    { ...PORTION, growthTimeoutMs: 2000 },
  );
  delayMs = 5000;
  takeAll(allocator);
  const wait = allocator.allocateExtentWhenReady(1);
  await clock.advance(1999);
  assert.is(allocator.stats().waiting, 1);
  await clock.advance(1);
  assert.is(await wait, "full");
  assert.is(allocator.allocateExtent(1), "full");
  assert.equal(typesOf(events), ["growth_late"]);
  await clock.advance(3000);
  assert.is(events.at(-1)!.type, "growth_recovered");
  assert.equal(allocator.allocateExtent(1), { firstSlot: 16, count: 1 });
});

test("a store whose growth hangs is skipped after the time limit", async () => {
  let delayMs = 0;
  const { allocator, clock } = await makeAllocator(
    (clock) => [
      new FakeStore({ clock, onPreallocate: () => ({ delayMs }) }),
      new FakeStore({ clock }),
    ],
    { ...PORTION, limitBytes: 40 * SLOT_BYTES, growthTimeoutMs: 2000 },
  );
  delayMs = Number.POSITIVE_INFINITY;
  takeAll(allocator);
  await clock.advance(2000);
  let slots = takeAll(allocator).slots;
  assert.is(slots.length, 8, "16 of 40 are used, 16 are promised to the hanging growth");
  assert.ok(slots.every((slot) => slotStore(slot) === 1));
  slots = takeAll(allocator).slots;
  assert.is(allocator.allocateExtent(1), "full", "no caller waits for a growth that hangs");
});

/** Slots in one step of an allocation. */
const STEP_SLOTS = 2 ** 24 / SLOT_BYTES;

/** An allocator on a disk with steps of this duration; not started. */
function slowAllocator(delayMs: () => number) {
  const clock = new ManualClock();
  const fill: [readySteps: number, wantedSteps: number][] = [];
  const store = new FakeStore({ clock, onPreallocate: () => ({ delayMs: delayMs() }) });
  const allocator = new SlotAllocator([store], {
    slotBytes: SLOT_BYTES,
    clock,
    portionBytes: 8 * STEP_SLOTS * SLOT_BYTES,
    growthTimeoutMs: 1000,
    onFill: (ready, wanted) => fill.push([ready / 2 ** 24, wanted / 2 ** 24]),
  });
  return { allocator, clock, fill };
}

test("the start waits as long as there is progress, and reports it", async () => {
  const { allocator, clock, fill } = slowAllocator(() => 5999);
  const started = allocator.start(true);
  await Promise.all([started, clock.advance(8 * 5999)]);
  assert.is(allocator.stats().freeBytes, 8 * 2 ** 24);
  assert.equal(
    fill,
    [0, 1, 2, 3, 4, 5, 6, 7, 8].map((steps) => [steps, 8]),
  );
});

test("a quick disk is filled in few steps, and in short ones once its slots are in use", async () => {
  let delayMs = 0;
  const { allocator, clock, fill } = slowAllocator(() => delayMs);
  await Promise.all([allocator.start(true), clock.advance(0)]);
  assert.equal(
    fill,
    [0, 1, 3, 7, 8].map((steps) => [steps, 8]),
  );
  delayMs = 1;
  takeAll(allocator);
  await clock.advance(1);
  assert.is(takeAll(allocator).slots.length, STEP_SLOTS);
});

test("memory is filled in long steps, and grows in short ones once its slots are in use", async () => {
  const clock = new ManualClock();
  const steps: number[] = [];
  const onPreallocate = (_: number, lengthBytes: number) => {
    steps.push(lengthBytes);
    return { delayMs: 0 };
  };
  const store = new FakeStore({ clock, isInMemory: true, onPreallocate });
  const portionBytes = 2 ** 24;
  const allocator = new SlotAllocator([store], { slotBytes: SLOT_BYTES, clock, portionBytes });
  await Promise.all([allocator.start(true), clock.advance(0)]);
  assert.equal(steps.splice(0), [portionBytes]);
  takeAll(allocator);
  await clock.advance(0);
  assert.equal(steps, new Array(portionBytes / 2 ** 18).fill(2 ** 18));
});

test("a start without progress fails, whatever it has allocated", async () => {
  let steps = 0;
  const { allocator, clock } = slowAllocator(() => (++steps > 3 ? 6001 : 10));
  const starting = failsWith("STORE_TIMEOUT", () => allocator.start(true));
  await clock.advance(30 + 6000);
  await starting;
});

test("a start is cancelled with its caller", async () => {
  const { allocator, clock } = slowAllocator(() => 500);
  const gone = new AbortController();
  const starting = failsWith("ABORTED", () => allocator.start(true, gone.signal));
  await clock.advance(1200);
  gone.abort();
  await starting;
  await clock.advance(60_000);
  assert.is(allocator.stats().capacityBytes, 3 * 2 ** 24, "no further step is begun");
});

test("under load slots are ready after each step of a portion, and a slow disk does not count as full", async () => {
  let delayMs = 0;
  const { allocator, clock } = slowAllocator(() => delayMs);
  await Promise.all([allocator.start(true), clock.advance(0)]);
  delayMs = 900;
  const { answer } = takeAll(allocator);
  assert.is(answer, "wait");
  let granted = 0;
  for (let step = 1; step <= 20; step++) {
    const wait = allocator.allocateExtentWhenReady(1);
    await clock.advance(900);
    assert.is.not(await wait, "full", `in step ${step}`);
    granted += 1 + takeAll(allocator).slots.length;
    assert.is(granted, step * STEP_SLOTS);
  }
});

test("at the limit no_space is reported once, with the present size", async () => {
  const { allocator, clock, events } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    ...PORTION,
    limitBytes: 24 * SLOT_BYTES,
  });
  let taken = 0;
  for (let i = 0; i < 24; i++) {
    taken += typeof allocator.allocateExtent(1) === "string" ? 0 : 1;
    await clock.advance(0);
  }
  assert.is(taken, 24);
  assert.is(allocator.allocateExtent(1), "full");
  assert.equal(events, [
    {
      type: "no_space",
      requestedSectors: (24 * SLOT_BYTES) / 512,
      freeBytes: 8 * SLOT_BYTES,
      limitBytes: 24 * SLOT_BYTES,
    },
  ]);
  allocator.free(0, 16);
  for (let i = 0; i < 16; i++) allocator.allocateExtent(1);
  await settle();
  assert.equal(typesOf(events), ["no_space", "no_space"], "a new shortage is said again");
});

test("a device without a limit reports low_free_space when it runs short", async () => {
  const { allocator, events } = await makeAllocator(
    (clock) => [new FakeStore({ clock, kind: "block", openedBytes: 40 * SLOT_BYTES + 100 })],
    PORTION,
  );
  assert.is(allocator.stats().capacityBytes, 40 * SLOT_BYTES);
  assert.is(takeAll(allocator).slots.length, 40);
  assert.is(allocator.allocateExtent(1), "full");
  assert.equal(typesOf(events), ["low_free_space"]);
  assert.ok(events[0].type === "low_free_space" && events[0].reason === "stores_exhausted");
});

test("a start without room fails with what is needed and what is available", async () => {
  let fake: FakeStore | undefined;
  const error = await failsWith("STORE_FULL", () =>
    makeAllocator((clock) => {
      fake = new FakeStore({ clock, path: "/full", diskBytes: 5 * SLOT_BYTES });
      return [fake];
    }, PORTION),
  );
  assert.is(error.neededBytes, 16 * SLOT_BYTES);
  assert.is(error.availableBytes, 5 * SLOT_BYTES);
  assert.is(error.path, "/full");
  assert.is(error.errnoName, "ENOSPC");
  assert.is(fake!.backedBytes, 0, "the disk was not filled in the attempt");
});

test("stop answers waiting requests, and nothing grows afterwards", async () => {
  let delayMs = 0;
  const { allocator, clock } = await makeAllocator(
    (clock) => [new FakeStore({ clock, onPreallocate: () => ({ delayMs }) })],
    PORTION,
  );
  delayMs = 50;
  const { slots } = takeAll(allocator);
  const wait = allocator.allocateExtentWhenReady(1);
  allocator.stop();
  assert.is(await wait, "full");
  assert.is(allocator.allocateExtent(1), "full");
  const idle = allocator.idle();
  await clock.advance(50);
  await idle;
  for (const slot of slots) allocator.free(slot, 1);
  assert.is(clock.timerCount, 0);
});

test.run();
