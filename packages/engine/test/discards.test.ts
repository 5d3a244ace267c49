/** Which discards of the original the CBT map shows as discards. */
import { RequestFlag, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";

const { WRITE, DISCARD, WRITE_ZEROES } = RequestOp;
const BLOCK = 65536;

/** Blocks that the CBT map shows as discarded after a take at this moment. */
function discardedAfterTake(host: FakeHost): number[] {
  host.run();
  host.take();
  const kinds = new Uint8Array(host.cbt.blockCount);
  host.cbt.readFrozen(new Uint8Array(kinds.length), 0, kinds.length, kinds);
  return [...kinds.keys()].filter((block) => kinds[block] === 1);
}

test("shown: a discard, and write-zeroes that may unmap", () => {
  const host = new FakeHost();
  host.front(0, DISCARD, 0, BLOCK);
  host.front(1, WRITE_ZEROES, BLOCK, BLOCK);
  host.engine.front.flags[2] = RequestFlag.NOUNMAP;
  host.front(2, WRITE_ZEROES, 2 * BLOCK, BLOCK);
  host.front(3, DISCARD, 3 * BLOCK, BLOCK - 512);
  assert.equal(discardedAfterTake(host), [0, 1]);
});

test("not shown: a discard that failed", () => {
  const host = new FakeHost();
  host.fault = () => -5;
  host.front(0, DISCARD, 0, BLOCK);
  assert.equal(discardedAfterTake(host), []);
});

test("not shown: a discard in flight with a write, whichever began and ended first", () => {
  for (const [first, second] of [
    [WRITE, DISCARD],
    [DISCARD, WRITE],
  ] as const) {
    for (const endsFirst of [0, 1]) {
      const host = new FakeHost();
      host.front(0, first, 0, first === WRITE ? 4096 : 2 * BLOCK);
      host.front(1, second, 0, second === WRITE ? 4096 : 2 * BLOCK);
      host.answer("original", (id) => id === endsFirst);
      assert.equal(discardedAfterTake(host), []);
    }
  }
});

test("not shown: a discard that ended while a write to its range waited for a copy", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, BLOCK);
  host.answer("copy");
  host.front(1, WRITE, BLOCK - 4096, 8192);
  assert.is(host.questions.length, 2);
  host.answer("original");
  host.run();
  host.engine.dropArea();
  assert.equal(discardedAfterTake(host), []);
});

test("shown: a discard beside writes elsewhere, and one beside another discard", () => {
  const host = new FakeHost();
  host.front(0, DISCARD, 0, BLOCK);
  host.front(1, WRITE, BLOCK, BLOCK);
  host.front(2, DISCARD, 0, 2 * BLOCK - 4096);
  host.front(3, WRITE, 3 * BLOCK, 512);
  host.answer("original", (id) => id === 1);
  assert.equal(discardedAfterTake(host), [0]);
});

test("not shown: a discard during which its range was marked by hand", () => {
  const host = new FakeHost();
  host.front(0, DISCARD, 0, BLOCK);
  host.engine.markDirty(0, 512);
  assert.equal(discardedAfterTake(host), []);
});

test.run();
