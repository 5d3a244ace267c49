import { slotStore } from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeStore } from "../dist/testing/fake-store.js";
import { makeAllocator, SLOT_BYTES, takeAll } from "./support.js";

test("a store whose medium lost cached data counts as lost, if it had any data", async () => {
  let hasLost = true;
  const losses: unknown[] = [];
  const hasLostWrites = async (): Promise<boolean> => {
    const answer = hasLost;
    hasLost = false;
    return answer;
  };
  const { allocator, clock } = await makeAllocator(
    (clock) => [
      Object.assign(new FakeStore({ clock }), { hasLostWrites }),
      new FakeStore({ clock }),
    ],
    { portionBytes: 16 * SLOT_BYTES, onCut: (...loss) => losses.push(loss) },
  );
  await clock.advance(3000);
  assert.equal(losses, [], "it had nothing of ours");
  assert.ok(takeAll(allocator).slots.some((slot) => slotStore(slot) === 0));
  await clock.advance(3000);
  assert.equal(losses, []);
  hasLost = true;
  await clock.advance(1000);
  assert.equal(losses, [[0, 0, "unwritten"]]);
  for (let i = 0; i < 3; i++) {
    assert.ok(takeAll(allocator).slots.every((slot) => slotStore(slot) === 1));
    await clock.advance(100);
  }
});

test("a check asks for what was lost since an earlier one that has not ended", async () => {
  let hasLost = false;
  let endPresence = (): void => undefined;
  let isHeld = false;
  const held = {
    hasLostWrites: async () => hasLost,
    presence: async () => {
      if (!isHeld) return undefined;
      return new Promise<undefined>((resolve) => {
        endPresence = () => resolve(undefined);
      });
    },
  };
  const losses: unknown[] = [];
  const { allocator, clock } = await makeAllocator(
    (clock) => [Object.assign(new FakeStore({ clock }), held)],
    { portionBytes: 16 * SLOT_BYTES, onCut: (...loss) => losses.push(loss) },
  );
  takeAll(allocator);
  isHeld = true;
  await clock.advance(1000);
  hasLost = true;
  isHeld = false;
  const looking = allocator.look();
  endPresence();
  await looking;
  assert.equal(losses, [[0, 0, "unwritten"]]);
});

test.run();
