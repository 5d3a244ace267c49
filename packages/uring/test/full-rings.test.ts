import { prepareNop, Ring, SetupFlag } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { popCompletions } from "./support.js";

test("a full submission ring is given to the kernel, and nothing is lost", () => {
  const ring = new Ring({ entries: 4, cqEntries: 64 });
  for (let i = 0; i < 11; i++) prepareNop(ring, i, 0, 0);
  assert.is(ring.pending, 3);
  assert.equal(
    popCompletions(ring, 11).map(({ low }) => low),
    Array.from({ length: 11 }, (_, i) => i),
  );
  assert.is(ring.ready(), 0);
  ring.close();
});

for (const flags of [0, SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN]) {
  test(`completions beyond a full ring are kept and come later (flags ${flags})`, () => {
    const ring = new Ring({ entries: 8, cqEntries: 8, flags });
    for (let i = 0; i < 100; i++) prepareNop(ring, i, 0, 0);
    ring.submitAndWait(8);
    assert.is(ring.ready(), 8);
    assert.ok(ring.overflowed());
    const seen = popCompletions(ring, 100).map(({ low }) => low);
    assert.equal(
      seen.sort((a, b) => a - b),
      Array.from({ length: 100 }, (_, i) => i),
    );
    assert.not(ring.overflowed());
    ring.close();
  });
}

test.run();
