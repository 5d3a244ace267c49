import {
  makeSlot,
  SLOT_MAX,
  SLOTS_PER_STORE_MAX,
  slotIndex,
  slotOffsetBytes,
  slotStore,
} from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("a slot number holds store and index in 31 bits", () => {
  for (const store of [0, 1, 7]) {
    for (const index of [0, 1, 12345, SLOTS_PER_STORE_MAX - 1]) {
      const slot = makeSlot(store, index);
      assert.ok(slot >= 0 && slot <= SLOT_MAX);
      assert.is(new Int32Array([slot])[0], slot);
      assert.is(slotStore(slot), store);
      assert.is(slotIndex(slot), index);
      assert.is(slotOffsetBytes(slot, 262144), index * 262144);
    }
  }
  assert.is(makeSlot(7, SLOTS_PER_STORE_MAX - 1), SLOT_MAX);
});

test.run();
