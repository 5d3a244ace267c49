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

test("places of completions that were passed are taken until the next call, which returns them", () => {
  const flags = SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN;
  const ring = new Ring({ entries: 8, cqEntries: 8, flags });
  const seen: number[] = [];
  for (let first = 0; first < 80; first += 8) {
    for (let i = 0; i < 8; i++) prepareNop(ring, first + i, 0, 0);
    ring.submitAndWait(8);
    assert.is(ring.ready(), 8);
    for (let left = 8; left > 0; left--) {
      seen.push(ring.cqes32[ring.headIndex()] as number);
      ring.pass();
    }
    assert.is(ring.ready(), 0);
  }
  assert.equal(
    seen,
    Array.from({ length: 80 }, (_, i) => i),
  );
  assert.not(ring.overflowed());
  ring.close();
});

test("a batch of completions that is being handled does not keep a full ring from being submitted", () => {
  const flags = SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN;
  const ring = new Ring({ entries: 8, cqEntries: 8, flags });
  for (let i = 0; i < 24; i++) prepareNop(ring, i, 0, 0);
  ring.submitAndWait(8);
  assert.is(ring.ready(), 8);
  assert.ok(ring.overflowed());
  let seen = 0;
  for (let prepared = 24; seen < 100; seen++) {
    if (ring.ready() === 0) ring.submitAndWait(1);
    ring.pass();
    // One for each that was passed: the ring is full of entries before the batch is over.
    if (prepared++ < 100) prepareNop(ring, prepared, 0, 0);
  }
  assert.is(ring.ready(), 0);
  ring.close();
});

test.run();
