import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SlotBitmap } from "../dist/bitmap.js";

/** The first run of members at or after `from`, found by checking each number. */
function plainRun(
  members: ReadonlySet<number>,
  from: number,
  maxCount: number,
  end: number,
): { first: number; count: number } | undefined {
  for (let first = from; first < end; first++) {
    if (!members.has(first)) continue;
    let count = 1;
    while (count < maxCount && members.has(first + count)) count += 1;
    return { first, count };
  }
  return undefined;
}

test("ranges and runs agree with a plain set", () => {
  const span = fc.record({ first: fc.nat({ max: 2500 }), count: fc.integer({ min: 1, max: 200 }) });
  const property = fc.property(fc.array(span, { maxLength: 40 }), (spans) => {
    const bitmap = new SlotBitmap();
    const members = new Set<number>();
    for (const { first, count } of spans) {
      const range = Array.from({ length: count }, (_, i) => first + i);
      // Only a range of one kind may be changed; others must be refused.
      if (range.every((index) => !members.has(index))) {
        bitmap.add(first, count);
        for (const index of range) members.add(index);
      } else if (range.every((index) => members.has(index))) {
        bitmap.remove(first, count);
        for (const index of range) members.delete(index);
      }
      assert.is(bitmap.count, members.size);
      for (const maxCount of [1, 33, 5000]) {
        assert.equal(bitmap.findRun(first, maxCount), plainRun(members, first, maxCount, 3000));
        assert.equal(bitmap.findRun(0, maxCount), plainRun(members, 0, maxCount, 3000));
      }
      assert.is(bitmap.has(first), members.has(first));
    }
  });
  fc.assert(property, { numRuns: 200 });
});

test("a bit cannot be set or cleared twice", () => {
  const bitmap = new SlotBitmap();
  bitmap.add(10, 5);
  assert.throws(() => bitmap.add(14, 1), "exactly once");
  assert.throws(() => bitmap.remove(9, 1), "exactly once");
  assert.throws(() => bitmap.remove(100_000, 1), "exist");
});

test("the largest possible store works", () => {
  const bitmap = new SlotBitmap();
  bitmap.add(0, 2 ** 28);
  for (let i = 0; i < 2 ** 28; i += 2 ** 18) bitmap.remove(i, 2 ** 18);
  bitmap.add(2 ** 28 - 1, 1);
  assert.equal(bitmap.findRun(0, 16), { first: 2 ** 28 - 1, count: 1 });
});

test.run();
