/** The class agrees with a map of all bytes about the pieces of a reply. */
import { Dice } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Arrived } from "../dist/arrived.js";

const BYTES = 24;

function wholeOf(map: readonly boolean[]): number {
  const gap = map.indexOf(false);
  return gap < 0 ? map.length : gap;
}

test("pieces are accepted in any order, until one overlaps another", () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  const dice = new Dice(seed);
  let complete = 0;
  let refused = 0;
  for (let round = 0; round < 20_000; round++) {
    const map = Array.from({ length: BYTES }, () => false);
    const arrived = new Arrived();
    for (;;) {
      const start = dice.below(BYTES);
      const end = start + 1 + dice.below(Math.min(4, BYTES - start));
      const isNew = !map.slice(start, end).includes(true);
      // Otherwise few series would get as far as an overlap.
      if (!isNew && round % 2 === 0) continue;
      assert.is(arrived.add(start, end), isNew, `seed ${seed}, round ${round}: ${start}-${end}`);
      if (!isNew) {
        refused++;
        break;
      }
      map.fill(true, start, end);
      assert.is(arrived.wholeBytes, wholeOf(map), `seed ${seed}, round ${round}`);
      if (!map.includes(false)) {
        complete++;
        break;
      }
    }
  }
  assert.ok(complete >= 10_000 && refused > 0, `${complete} complete, ${refused} refused`);
});

test("a reply with a gap behind each byte is refused", () => {
  const arrived = new Arrived();
  let pieces = 0;
  while (arrived.add(1 + pieces * 2, 2 + pieces * 2)) pieces++;
  assert.ok(pieces >= 1000 && pieces < 10_000, `${pieces}`);
});

test.run();
