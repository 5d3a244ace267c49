import { prepareNop, Ring } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { popCompletions } from "./support.js";

test("a NOP brings both halves of its user data back", () => {
  const ring = new Ring({ entries: 8 });
  prepareNop(ring, -2, 0x7fff_ffff, 0);
  prepareNop(ring, 0, -1, 0);
  assert.equal(popCompletions(ring, 2), [
    { low: -2, high: 0x7fff_ffff, result: 0 },
    { low: 0, high: -1, result: 0 },
  ]);
  ring.close();
});

test("a batch is one call of the kernel", () => {
  const ring = new Ring({ entries: 64 });
  for (let i = 0; i < 64; i++) prepareNop(ring, i, 0, 0);
  const before = ring.enterCalls;
  ring.submitAndWait(64);
  assert.is(ring.enterCalls - before, 1);
  assert.is(ring.ready(), 64);
  assert.is(ring.pending, 0);
  ring.close();
});

test.run();
