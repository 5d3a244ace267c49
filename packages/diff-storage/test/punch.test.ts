import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeStore } from "../dist/testing/fake-store.js";
import { makeAllocator, SLOT_BYTES, takeAll } from "./support.js";

const OPTIONS = { portionBytes: 16 * SLOT_BYTES, limitBytes: 96 * SLOT_BYTES };

async function takeEverything(taker: Awaited<ReturnType<typeof makeAllocator>>): Promise<number[]> {
  const slots: number[] = [];
  for (let i = 0; i < 20; i++) {
    slots.push(...takeAll(taker.allocator).slots);
    await taker.clock.advance(1);
  }
  return slots;
}

test("freed space beyond a portion is returned, in batches, and allocated again when needed", async () => {
  const punches: number[] = [];
  const made = await makeAllocator(
    (clock) => [
      new FakeStore({
        clock,
        onPunch: (_, lengthBytes) => {
          punches.push(lengthBytes / SLOT_BYTES);
          return { delayMs: 0 };
        },
      }),
    ],
    OPTIONS,
  );
  const { allocator, clock, stores } = made;
  const slots = await takeEverything(made);
  assert.is(slots.length, 96);
  for (const slot of slots) allocator.free(slot, 1);
  assert.equal(punches, []);
  await clock.advance(1000);
  assert.equal(punches, [80]);
  assert.is(allocator.stats().capacityBytes, 16 * SLOT_BYTES);
  assert.is(allocator.stats().stores[0].holeBytes, 80 * SLOT_BYTES);
  assert.is((stores[0] as FakeStore).backedBytes, 16 * SLOT_BYTES);
  const again = await takeEverything(made);
  assert.is(new Set(again).size, 96);
  assert.is(Math.max(...again), 95, "holes are filled before the file is extended");
});

test("a store that cannot punch is not asked again; its slots are reused", async () => {
  let asked = 0;
  const made = await makeAllocator(
    (clock) => [
      new FakeStore({
        clock,
        onPunch: () => {
          asked += 1;
          return { delayMs: 0, errnoName: "EOPNOTSUPP" };
        },
      }),
    ],
    OPTIONS,
  );
  const slots = await takeEverything(made);
  for (const slot of slots) made.allocator.free(slot, 1);
  await made.clock.advance(5000);
  assert.is(asked, 1);
  assert.equal(
    made.events.filter((event) => event.type === "punch_failed").map((event) => event.errnoName),
    ["EOPNOTSUPP"],
  );
  assert.is((await takeEverything(made)).length, 96);
});

test("space lost to a partly failed punch is preallocated before it is used", async () => {
  const cuts: number[] = [];
  let lostSlots = 0;
  const { allocator, clock, stores } = await makeAllocator(
    (clock) => {
      const presentSpaceBytes = () => (stores[0] as FakeStore).backedBytes - lostSlots * SLOT_BYTES;
      const onPunch = () => {
        lostSlots = 1;
        return { delayMs: 0, errnoName: "EIO" };
      };
      const presentBytes = () => 64 * SLOT_BYTES;
      return [new FakeStore({ clock, presentBytes, presentSpaceBytes, onPunch })];
    },
    {
      portionBytes: 4 * SLOT_BYTES,
      limitBytes: 16 * SLOT_BYTES,
      onCut: (index) => cuts.push(index),
    },
  );
  const taken: number[] = [];
  const takeSome = async () => {
    for (let i = 0; i < 16; i++) {
      taken.push(...takeAll(allocator).slots);
      await clock.advance(700);
    }
  };
  await takeSome();
  assert.is(taken.length, 16);
  for (const slot of taken.splice(0)) allocator.free(slot, 1);
  await clock.advance(5000);
  assert.is(lostSlots, 1, "it was punched");
  assert.equal(cuts, []);
  // Preallocated slots have their space again.
  lostSlots = 0;
  await takeSome();
  assert.is(taken.length, 16);
  assert.equal(cuts, []);
});

test("block devices are not punched", async () => {
  const made = await makeAllocator(
    (clock) => [new FakeStore({ clock, kind: "block", openedBytes: 96 * SLOT_BYTES })],
    OPTIONS,
  );
  const slots = await takeEverything(made);
  for (const slot of slots) made.allocator.free(slot, 1);
  await made.clock.advance(5000);
  assert.is(made.allocator.stats().freeBytes, 96 * SLOT_BYTES);
});

test.run();
