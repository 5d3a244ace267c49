/** Rings with and without an array of indices before their submission entries. */
import { prepareNop, Ring, SetupFlag } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";
import { popCompletions } from "./support.js";

const EINVAL = 22;

test("the array has an offset if and only if the ring has one", () => {
  for (const [flags, has] of [
    [0, true],
    [SetupFlag.NO_SQARRAY, false],
  ] as const) {
    const ring = native.createRing(64, 256, flags);
    if (ring === -EINVAL && flags !== 0) continue; // Before Linux 6.6.
    assert.type(ring, "object");
    const { offsets, rings, sqes, handle } = ring as Exclude<typeof ring, number>;
    assert.is(offsets.sqArray !== undefined, has);
    const words = new Int32Array(rings, 0, rings.byteLength >> 2);
    for (const name of ["sqHead", "sqTail", "cqHead", "cqTail", "sqDropped"] as const) {
      assert.is(words[offsets[name] >> 2], 0, name);
    }
    assert.is(words[offsets.sqMask >> 2], 63);
    assert.is(words[offsets.cqMask >> 2], 255);
    native.closeRing(handle, rings, sqes);
  }
});

for (const [name, flags] of [
  ["with the array", 0],
  ["without it", SetupFlag.NO_SQARRAY],
] as const) {
  test(`a ring ${name} takes its entries in order, round after round`, () => {
    let ring: Ring;
    try {
      ring = new Ring({ entries: 8, flags });
    } catch (error) {
      // Before Linux 6.6.
      if ((error as { errno?: number }).errno === EINVAL && flags !== 0) return;
      throw error;
    }
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 7; i++) prepareNop(ring, 7 * round + i, round, 0);
      assert.equal(
        popCompletions(ring, 7).map(({ low, high }) => [low, high]),
        Array.from({ length: 7 }, (_, i) => [7 * round + i, round]),
      );
    }
    assert.is(ring.ready(), 0);
    ring.close();
  });
}

test.run();
