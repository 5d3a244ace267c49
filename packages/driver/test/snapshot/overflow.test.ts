import { OverflowPolicy } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { completePolicy, overflowSetup } from "../../dist/snapshot/overflow.js";

test("a policy gets its defaults, and is checked", () => {
  assert.equal(completePolicy(undefined), { policy: "break-snapshot" });
  assert.equal(completePolicy({ policy: "block-writes" }), {
    policy: "block-writes",
    timeout_ms: 30_000,
  });
  assert.throws(
    () => completePolicy({ policy: "fail-writes", timeout_ms: 5 }),
    (error: { code?: string }) => error.code === "REQUEST_INVALID",
  );
});

test("the time limit becomes ticks of at most a second", () => {
  const { BLOCK_WRITES, FAIL_WRITES } = OverflowPolicy;
  const blocks = (timeout_ms: number) => overflowSetup({ policy: "block-writes", timeout_ms });
  assert.equal(blocks(30_000), { policy: BLOCK_WRITES, tickMs: 1000, ticksMax: 30 });
  assert.equal(blocks(1000), { policy: BLOCK_WRITES, tickMs: 125, ticksMax: 8 });
  assert.equal(blocks(1), { policy: BLOCK_WRITES, tickMs: 1, ticksMax: 1 });
  assert.is(overflowSetup({ policy: "fail-writes" }).policy, FAIL_WRITES);
});

test.run();
