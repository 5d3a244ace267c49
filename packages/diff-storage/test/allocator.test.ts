import { SlotAllocator, slotIndex, slotStore } from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ManualClock } from "../dist/testing/clock.js";
import { FakeStore } from "../dist/testing/fake-store.js";
import { failsWith, makeAllocator, SLOT_BYTES, takeAll } from "./support.js";

test("the first portion is ready after the start", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 64 * SLOT_BYTES,
  });
  const stats = allocator.stats();
  assert.is(stats.freeBytes, 64 * SLOT_BYTES);
  assert.is(stats.capacityBytes, 64 * SLOT_BYTES);
  assert.is(stats.allocatedBytes, 0);
  assert.is(stats.limitBytes, undefined);
});

test("a limit below the portion becomes the first portion", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 64 * SLOT_BYTES,
    limitBytes: 10 * SLOT_BYTES + 17,
  });
  assert.is(allocator.stats().capacityBytes, 10 * SLOT_BYTES);
  const { slots, answer } = takeAll(allocator);
  assert.is(new Set(slots).size, 10);
  assert.is(answer, "full");
});

test("no extent has more than 1024 slots", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 16_384 * SLOT_BYTES,
  });
  assert.equal(allocator.allocateExtent(5000), { firstSlot: 0, count: 1024 });
});

test("extents take an eighth of what is ready, and shrink with it", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 256 * SLOT_BYTES,
    limitBytes: 256 * SLOT_BYTES,
  });
  const counts: number[] = [];
  for (;;) {
    const extent = allocator.allocateExtent(1000);
    if (typeof extent === "string") break;
    counts.push(extent.count);
  }
  assert.is(counts[0], 32);
  assert.is(counts.at(-1), 1);
  assert.equal(
    counts,
    counts.toSorted((a, b) => b - a),
  );
  assert.is(
    counts.reduce((sum, count) => sum + count, 0),
    256,
  );
});

test("stores are filled in order", async () => {
  const { allocator, clock } = await makeAllocator(
    (clock) => [
      new FakeStore({ clock, kind: "memory", limitBytes: 4 * SLOT_BYTES }),
      new FakeStore({ clock, kind: "block", openedBytes: 8 * SLOT_BYTES }),
      new FakeStore({ clock }),
    ],
    { portionBytes: 8 * SLOT_BYTES, limitBytes: 20 * SLOT_BYTES },
  );
  const slots: number[] = [];
  for (let i = 0; i < 20; i++) {
    const { slots: taken } = takeAll(allocator);
    slots.push(...taken);
    await clock.advance(1);
  }
  assert.equal(slots.map(slotStore), [
    ...Array(4).fill(0),
    ...Array(8).fill(1),
    ...Array(8).fill(2),
  ]);
  assert.equal(slots.slice(12).map(slotIndex), [0, 1, 2, 3, 4, 5, 6, 7]);
});

test("freed slots are handed out again, adjacent ones together", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 64 * SLOT_BYTES,
    limitBytes: 64 * SLOT_BYTES,
  });
  takeAll(allocator);
  for (const slot of [40, 42, 41, 43, 44, 45, 46, 47]) allocator.free(slot, 1);
  for (const [first, count] of [
    [0, 16],
    [16, 24],
    [48, 16],
  ]) {
    allocator.free(first, count);
  }
  assert.equal(allocator.allocateExtent(16), { firstSlot: 0, count: 8 });
  assert.is(allocator.stats().allocatedBytes, 8 * SLOT_BYTES);
});

test("freeing slots that are not in use is refused and changes nothing", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 64 * SLOT_BYTES,
    limitBytes: 64 * SLOT_BYTES,
  });
  const extent = allocator.allocateExtent(4);
  assert.equal(extent, { firstSlot: 0, count: 4 });
  await failsWith("SLOT_INVALID", () => allocator.free(0, 5));
  await failsWith("SLOT_INVALID", () => allocator.free(9, 1));
  await failsWith("SLOT_INVALID", () => allocator.free(2 ** 28, 1));
  await failsWith("ARGUMENT_INVALID", () => allocator.free(-1, 1));
  await failsWith("ARGUMENT_INVALID", () => allocator.free(0, 0));
  allocator.free(0, 4);
  await failsWith("SLOT_INVALID", () => allocator.free(0, 4));
  assert.is(allocator.stats().allocatedBytes, 0);
});

test("after a restart only slots that the maps name are in use", async () => {
  const clock = new ManualClock();
  const store = new FakeStore({ clock, openedBytes: 40 * SLOT_BYTES });
  const device = new FakeStore({ clock, kind: "block", openedBytes: 2 * SLOT_BYTES });
  const options = { slotBytes: SLOT_BYTES, clock, portionBytes: 16 * SLOT_BYTES };
  const stores = [store, device];
  const allocator = new SlotAllocator(stores, { ...options, limitBytes: 40 * SLOT_BYTES });
  allocator.reserveForRecovery([3, 5, 39]);
  await failsWith("SLOT_INVALID", () => allocator.reserveForRecovery([5]));
  await failsWith("SLOT_INVALID", () => allocator.reserveForRecovery([2 ** 28 + 2]));
  await failsWith("SLOT_INVALID", () => allocator.reserveForRecovery([2 ** 29]));
  await allocator.start(false);
  assert.is(allocator.stats().allocatedBytes, 3 * SLOT_BYTES);
  const slots: number[] = [];
  for (let i = 0; i < 10; i++) {
    slots.push(...takeAll(allocator).slots);
    await clock.advance(1);
  }
  assert.is(new Set(slots).size, 37);
  assert.not.ok(slots.some((slot) => [3, 5, 39].includes(slot)));
  assert.is(allocator.allocateExtent(1), "full");
});

test("slots beyond the end of a file are reported, and never handed out twice", async () => {
  const clock = new ManualClock();
  const store = new FakeStore({ clock, openedBytes: 4 * SLOT_BYTES });
  const cuts: [store: number, firstSlotIndex: number][] = [];
  const options = { slotBytes: SLOT_BYTES, clock, portionBytes: 16 * SLOT_BYTES };
  const allocator = new SlotAllocator([store], {
    ...options,
    limitBytes: 16 * SLOT_BYTES,
    onCut: (index, first) => cuts.push([index, first]),
  });
  allocator.reserveForRecovery([2, 3]);
  assert.equal(cuts, []);
  allocator.reserveForRecovery([4, 7]);
  assert.equal(cuts, [[0, 4]]);
  await Promise.all([allocator.start(true), clock.advance(0)]);
  const slots: number[] = [];
  for (let i = 0; i < 10; i++) {
    slots.push(...takeAll(allocator).slots);
    await clock.advance(1);
  }
  assert.equal(
    [...slots].sort((a, b) => a - b),
    [0, 1, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15],
  );
});

test("a truncated file is reported once, and gets nothing more", async () => {
  let presentSlots = 0;
  const cuts: [store: number, firstSlotIndex: number][] = [];
  const { allocator, clock } = await makeAllocator(
    (clock) => [
      new FakeStore({ clock, presentBytes: () => presentSlots * SLOT_BYTES }),
      new FakeStore({ clock }),
    ],
    { portionBytes: 16 * SLOT_BYTES, onCut: (index, first) => cuts.push([index, first]) },
  );
  presentSlots = 16;
  await clock.advance(3000);
  // Longer than expected: the last growth was not complete, and is undone.
  presentSlots = 20;
  await clock.advance(3000);
  presentSlots = 16;
  await clock.advance(3000);
  assert.equal(cuts, []);
  presentSlots = 15;
  await clock.advance(3000);
  assert.equal(cuts, [[0, 0]], "where it was cut off is not known any more");
  for (let i = 0; i < 3; i++) {
    assert.ok(takeAll(allocator).slots.every((slot) => slotStore(slot) === 1));
    await clock.advance(100);
  }
  presentSlots = 3;
  await clock.advance(3000);
  assert.is(cuts.length, 2, "copies into slots of before may have been cut off");
});

test("a file truncated and extended again between two checks is detected by its space", async () => {
  let spaceSlots = 16;
  const cuts: number[] = [];
  const { allocator, clock } = await makeAllocator(
    (clock) => [
      new FakeStore({
        clock,
        presentBytes: () => 16 * SLOT_BYTES,
        presentSpaceBytes: () => spaceSlots * SLOT_BYTES,
      }),
    ],
    { portionBytes: 16 * SLOT_BYTES, onCut: (index) => cuts.push(index) },
  );
  await clock.advance(1000);
  // The space for the file system's own metadata varies.
  spaceSlots = 17;
  await clock.advance(1000);
  spaceSlots = 16;
  await clock.advance(1000);
  assert.equal(cuts, []);
  spaceSlots = 15;
  await clock.advance(1000);
  assert.equal(cuts, [0]);
  await clock.advance(1000);
  assert.equal(cuts, [0], "once");
  assert.is(allocator.stats().freeBytes, 0, "nothing new is put there");
});

test("a file that had holes when it was opened does not count as truncated", async () => {
  const clock = new ManualClock();
  let spaceSlots = 3;
  const sizes = {
    presentBytes: () => 8 * SLOT_BYTES,
    presentSpaceBytes: () => spaceSlots * SLOT_BYTES,
  };
  const cuts: number[] = [];
  const allocator = new SlotAllocator(
    [new FakeStore({ clock, openedBytes: 8 * SLOT_BYTES, ...sizes })],
    {
      slotBytes: SLOT_BYTES,
      clock,
      portionBytes: 4 * SLOT_BYTES,
      limitBytes: 8 * SLOT_BYTES,
      onCut: (index) => cuts.push(index),
    },
  );
  allocator.reserveForRecovery([0, 1, 2, 3]);
  await Promise.all([allocator.start(true), clock.advance(3000)]);
  assert.equal(cuts, []);
  spaceSlots = 8;
  await clock.advance(2000);
  spaceSlots = 7;
  await clock.advance(2000);
  assert.equal(cuts, [0], "from when it was whole it has to stay so");
});

test("space that this daemon frees is not missed", async () => {
  const cuts: number[] = [];
  const stores: FakeStore[] = [];
  const { allocator, clock } = await makeAllocator(
    (clock) => {
      const presentSpaceBytes = () => stores[0]!.backedBytes;
      const onPunch = () => ({ delayMs: 1500 });
      const presentBytes = () => 64 * SLOT_BYTES;
      stores.push(new FakeStore({ clock, presentBytes, presentSpaceBytes, onPunch }));
      return stores;
    },
    { portionBytes: 4 * SLOT_BYTES, onCut: (index) => cuts.push(index) },
  );
  const taken: number[] = [];
  for (let i = 0; i < 16; i++) {
    taken.push(...takeAll(allocator).slots);
    await clock.advance(700);
  }
  const before = stores[0]!.backedBytes;
  for (const slot of taken) allocator.free(slot, 1);
  for (let i = 0; i < 16; i++) await clock.advance(700);
  assert.ok(stores[0]!.backedBytes < before, "space was given back");
  assert.equal(cuts, []);
});

test("a file is checked before it becomes longer", async () => {
  let presentSlots = 16;
  const cuts: number[] = [];
  const { allocator, clock } = await makeAllocator(
    (clock) => [new FakeStore({ clock, presentBytes: () => presentSlots * SLOT_BYTES })],
    { portionBytes: 16 * SLOT_BYTES, onCut: (index) => cuts.push(index) },
  );
  await clock.advance(1000);
  presentSlots = 2;
  takeAll(allocator);
  await clock.advance(0);
  assert.equal(cuts, [0]);
  assert.is(allocator.stats().freeBytes, 0, "nothing was put behind the end");
});

test("the forecast follows the rate of use", async () => {
  const { allocator, clock } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 512 * SLOT_BYTES,
    limitBytes: 512 * SLOT_BYTES,
  });
  assert.is(allocator.stats().secondsToFull, undefined);
  for (let i = 0; i < 300; i++) {
    allocator.allocateExtent(1);
    await clock.advance(1000);
  }
  const busy = allocator.stats();
  const rate = busy.fillBytesPerSecond / SLOT_BYTES;
  assert.ok(rate > 0.9 && rate < 1.1, `${rate} slots per second`);
  assert.ok(busy.secondsToFull! > 180 && busy.secondsToFull! < 260, `${busy.secondsToFull} s`);
  await clock.advance(600_000);
  assert.ok(allocator.stats().secondsToFull! > 100_000);
});

test("the forecast does not count what is only in stock", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 512 * SLOT_BYTES,
    limitBytes: 512 * SLOT_BYTES,
  });
  assert.is.not(await allocator.allocateStockWhenReady(64), "full");
  const { fillBytesPerSecond, secondsToFull } = allocator.stats();
  assert.equal([fillBytesPerSecond, secondsToFull], [0, undefined]);
});

test("bad options are refused", async () => {
  const clock = new ManualClock();
  const store = new FakeStore({ clock });
  for (const limitBytes of [0, -1, Number.NaN, 1.5 * SLOT_BYTES + 0.5, SLOT_BYTES - 1]) {
    await failsWith(
      "LIMIT_INVALID",
      () => new SlotAllocator([store], { slotBytes: SLOT_BYTES, limitBytes }),
    );
  }
  await failsWith("STORE_COUNT_INVALID", () => new SlotAllocator([]));
  await failsWith("STORE_COUNT_INVALID", () => new SlotAllocator(Array(9).fill(store)));
  await failsWith("ARGUMENT_INVALID", () => new SlotAllocator([store], { slotBytes: 5000 }));
  await failsWith("ARGUMENT_INVALID", () => new SlotAllocator([store], { portionBytes: 1 }));
  await failsWith("ARGUMENT_INVALID", () => new SlotAllocator([store], { growthTimeoutMs: 0 }));
});

test("a store that does not answer is skipped until it does", async () => {
  const { allocator, clock, events } = await makeAllocator(
    (clock) => [new FakeStore({ clock }), new FakeStore({ clock })],
    { portionBytes: 32 * SLOT_BYTES },
  );
  const first = allocator.allocateExtent(1);
  assert.ok(typeof first !== "string" && slotStore(first.firstSlot) === 0);
  allocator.suspend(0, true);
  const waiting = allocator.allocateExtentWhenReady(1);
  await clock.advance(0);
  const second = await waiting;
  assert.ok(second !== "full" && slotStore(second.firstSlot) === 1);
  allocator.free(first.firstSlot, 1);
  const { slots } = takeAll(allocator);
  assert.equal(new Set(slots.map(slotStore)), new Set([1]));
  allocator.suspend(0, false);
  const third = allocator.allocateExtent(1);
  assert.ok(typeof third !== "string" && slotStore(third.firstSlot) === 0);
  // It has kept its space: there was no lack of it.
  assert.equal(
    events.filter(({ type }) => type === "no_space" || type === "low_free_space"),
    [],
  );
});

test("without a responding store there are no slots, and requests do not wait", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 32 * SLOT_BYTES,
  });
  allocator.suspend(0, true);
  assert.is(allocator.allocateExtent(1), "full");
  assert.ok(allocator.isWithholding);
  allocator.suspend(0, false);
  assert.not(allocator.isWithholding);
  assert.is.not(allocator.allocateExtent(1), "full");
});

test("a store without slots to give withholds nothing", async () => {
  const { allocator } = await makeAllocator((clock) => [new FakeStore({ clock })], {
    portionBytes: 32 * SLOT_BYTES,
    limitBytes: 32 * SLOT_BYTES,
  });
  const { slots } = takeAll(allocator);
  allocator.suspend(0, true);
  assert.is(allocator.allocateExtent(1), "full");
  assert.not(allocator.isWithholding);
  allocator.free(slots[0] as number, 1);
  assert.ok(allocator.isWithholding);
});

test.run();
