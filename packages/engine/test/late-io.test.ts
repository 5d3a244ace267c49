/** A store that does not answer: after the bound all requests continue, and late I/O harms no later one. */
import { OverflowPolicy, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";
import { lostRanges } from "./whole-maps.js";

const { READ, WRITE, DISCARD } = RequestOp;
const EIO = -5;
const ETIMEDOUT = 110;
/** The most ticks that a store may take. */
const BOUND = 7;
const isCopy = (q: { kind: string }) => q.kind === "copy";

/** A host whose store hangs with the copy of a write to the first block. */
function hungWrite(options = {}): FakeHost {
  const host = new FakeHost();
  host.take(64, options);
  host.front(0, WRITE, 0, 4096, 200);
  host.hang(BOUND + 1);
  return host;
}

test("a write continues after its bound, not before, and its block is lost", () => {
  const host = new FakeHost();
  const area = host.take();
  host.front(0, WRITE, 0, 4096, 200);
  host.front(1, WRITE, 0, 512, 201);
  host.hang(BOUND);
  assert.equal(host.questions, [{ kind: "copy", id: 0 }]);
  assert.is(host.engine.tick(), false);
  host.answer("original");
  assert.is(host.frontResults.get(0), 4096);
  assert.is(host.frontResults.get(1), 512);
  assert.equal(lostRanges(area), [{ offsetBytes: 0, lengthBytes: 4096 }]);
  assert.equal(host.faults, [ETIMEDOUT]);
  assert.equal(host.late, [{ kind: "copy", id: 0 }]);
  assert.equal(host.hung, [0]);
  assert.is(host.engine.stats.snapshot().lateIo, 1);
});

test("later writes do not wait until the store has answered", () => {
  const host = hungWrite();
  host.front(1, WRITE, 65536, 65536, 201);
  host.front(2, WRITE, 8192, 4096, 202);
  assert.is(host.questions.filter(isCopy).length, 1);
  host.answer("original");
  assert.is(host.frontResults.get(1), 65536);
  assert.is(host.frontResults.get(2), 4096);
  host.answer("copy");
  assert.equal(host.hung, []);
  const before = host.original.slice(16384, 20480);
  host.front(3, WRITE, 16384, 4096, 203);
  host.run();
  assert.equal(host.readImage(16384, 4096).data, before);
  assert.is(host.readImage(0, 4096).result, EIO);
  assert.is(host.engine.copies.lateCount, 0);
});

test("a slow read of the original does not count against the store", () => {
  const host = new FakeHost();
  const area = host.take();
  host.front(0, WRITE, 0, 4096, 200);
  for (let tick = 0; tick < 100; tick++) assert.is(host.engine.tick(), true);
  assert.equal(host.hung, []);
  host.hang(BOUND);
  host.run();
  assert.is(host.frontResults.get(0), 4096);
  assert.equal(lostRanges(area), []);
});

test("fail-writes: the write is refused, the block is not lost, and is copied when the store answers", () => {
  const host = hungWrite({ overflow: OverflowPolicy.FAIL_WRITES });
  const before = host.original.slice(0, 4096);
  assert.is(host.frontResults.get(0), EIO);
  host.front(1, WRITE, 0, 4096, 201);
  assert.is(host.frontResults.get(1), EIO);
  assert.equal(lostRanges(host.engine.area!), []);
  host.run();
  host.front(2, WRITE, 0, 4096, 202);
  host.run();
  assert.is(host.frontResults.get(2), 4096);
  assert.equal(host.readImage(0, 4096).data, before);
});

test("block-writes: the write waits for the store, and continues with its answer", () => {
  const options = { overflow: OverflowPolicy.BLOCK_WRITES, blockedTicksMax: 2 };
  const host = hungWrite(options);
  const area = host.engine.area!;
  assert.is(area.blockedWrites, 1);
  assert.is(host.blockedReported, 1);
  area.tick();
  assert.is(area.blockedWrites, 1);
  host.run();
  assert.is(host.frontResults.get(0), 4096);
  assert.equal(lostRanges(area), []);
});

test("block-writes: after its time the write continues without the store", () => {
  const options = { overflow: OverflowPolicy.BLOCK_WRITES, blockedTicksMax: 2 };
  const host = hungWrite(options);
  const area = host.engine.area!;
  for (let tick = 0; tick < 3; tick++) area.tick();
  host.answer("original");
  assert.is(host.frontResults.get(0), 4096);
  assert.equal(lostRanges(area), [{ offsetBytes: 0, lengthBytes: 4096 }]);
});

test("an area closes without waiting for late I/O, which does not affect the next area", () => {
  const host = hungWrite();
  host.engine.dropArea();
  assert.is(host.closed, 1);
  host.answer("original");
  host.take();
  const before = host.original.slice(4096, 8192);
  host.front(1, WRITE, 4096, 4096, 201);
  host.answer("original");
  assert.is(host.questions.filter(isCopy).length, 2);
  host.answer("copy", (id) => id !== 0);
  host.answer("original");
  host.answer("copy");
  assert.is(host.frontResults.get(1), 4096);
  assert.equal(host.hung, [0]);
  assert.equal(host.readImage(4096, 4096).data, before);
  assert.is(host.engine.copies.lateCount, 0);
});

test("a dropped area waits for nothing longer than the bound: neither a store nor the original", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 4096, 200);
  host.image(0, READ, 65536, 4096);
  host.engine.dropArea();
  assert.is(host.closed, 0);
  for (let tick = 0; tick <= BOUND; tick++) host.engine.tick();
  assert.is(host.closed, 1);
  assert.is(host.imageResults.get(0), EIO);
  assert.equal(
    host.late.map(({ kind }) => kind),
    ["copy", "run"],
  );
  host.run();
  assert.is(host.frontResults.get(0), 4096);
});

test("image requests end with EIO after the bound, and at once while the store hangs", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 8192, 200);
  host.run();
  host.image(0, READ, 0, 4096);
  host.image(1, WRITE, 4096, 4096, 7);
  host.image(2, WRITE, 65536, 4096, 7);
  host.hang(BOUND);
  assert.not(host.imageResults.has(0));
  host.engine.tick();
  for (const tag of [0, 1, 2]) assert.is(host.imageResults.get(tag), EIO);
  assert.is(host.late.length, 3);
  host.image(3, READ, 0, 4096);
  host.image(4, WRITE, 65536, 4096, 8);
  host.image(5, WRITE, 0, 4096, 8);
  for (const tag of [3, 4, 5]) assert.is(host.imageResults.get(tag), EIO);
  host.image(6, READ, 131072, 4096);
  host.answer("run", (id) => !host.late.some((one) => one.id === id));
  assert.is(host.imageResults.get(6), 4096);
});

test("a discard of the image does not free a slot with late I/O", () => {
  const host = hungWrite();
  host.image(0, DISCARD, 0, 65536);
  assert.equal(host.freed, []);
  host.run();
  host.image(1, DISCARD, 0, 65536);
  assert.equal(host.freed, [0]);
});

test("new chunks get slots of the stores that answer", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take(0, { storeShift: 4, storeCount: 2 });
  area.grantSlots(0, 4);
  area.grantSlots(16, 4);
  host.front(0, WRITE, 0, 4096, 200);
  host.hang(BOUND + 1);
  host.front(1, WRITE, 65536, 4096, 201);
  assert.is(host.engine.copies.slot[host.questions.at(-1)!.id], 16);
  host.answer("copy", (id) => id !== 0);
  host.answer("original");
  assert.is(host.frontResults.get(1), 4096);
  host.image(0, READ, 65536, 4096);
  host.answer("run");
  assert.equal(host.imageData[0], before.slice(65536, 65536 + 4096));
});

test("a host that waits for a record applies a bound of its own", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 4096, 200);
  host.hang(0);
  host.engine.onCopyWritten(0);
  for (let tick = 0; tick < 100; tick++) host.engine.tick();
  assert.equal(host.hung, []);
  host.run();
  assert.is(host.frontResults.get(0), 4096);
});

test("late copies that use up a whole set delay nothing", () => {
  const host = new FakeHost({ copiesMax: 1 });
  host.take(0, { storeShift: 4, storeCount: 2 });
  host.engine.area?.grantSlots(0, 4);
  host.engine.area?.grantSlots(16, 4);
  host.front(0, WRITE, 0, 4096, 200);
  host.hang(BOUND + 1);
  host.front(1, WRITE, 65536, 4096, 201);
  host.front(2, WRITE, 131072, 4096, 202);
  host.hang(BOUND + 1);
  host.answer("original");
  for (const tag of [0, 1, 2]) assert.is(host.frontResults.get(tag), 4096);
  host.image(0, WRITE, 262144 - 4096, 4096, 9);
  assert.is(host.imageResults.get(0), EIO);
});

test.run();
