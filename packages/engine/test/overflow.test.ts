/** What happens to a write that finds no room for its old data, by the area's overflow policy. */
import { CopyFault, OverflowPolicy, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";
import { lostRanges } from "./whole-maps.js";

const { READ, WRITE, WRITE_ZEROES } = RequestOp;
const EIO = -5;
const ENOSPC = -28;
const failWrites = { overflow: OverflowPolicy.FAIL_WRITES };
const blockWrites = { overflow: OverflowPolicy.BLOCK_WRITES, blockedTicksMax: 2 };

/** A host whose store has failed. */
function brokenStore(errno: number): FakeHost {
  const host = new FakeHost();
  host.faultSide = CopyFault.WRITE;
  host.fault = (kind) => (kind === "copy" ? errno : 0);
  return host;
}

test("fail-writes: without slots a write ends with ENOSPC, and has no effect", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take(0, failWrites);
  host.front(0, WRITE, 4096, 4096, 200);
  host.front(1, WRITE_ZEROES, 65536, 65536);
  area.denySlots(28);
  assert.is(host.frontResults.get(0), ENOSPC);
  assert.is(host.frontResults.get(1), ENOSPC);
  host.front(2, WRITE, 0, 512, 201);
  assert.is(host.frontResults.get(2), ENOSPC);
  assert.equal(host.questions, []);
  assert.equal(host.original, before);
  assert.equal(lostRanges(area), []);
  assert.equal(host.faults, []);
  assert.is(host.engine.stats.snapshot().refusedWrites, 3);
  area.grantSlots(0, 4);
  host.front(2, WRITE, 0, 512, 201);
  host.run();
  assert.is(host.frontResults.get(2), 512);
  assert.equal(host.readImage(0, 65536).data, before.slice(0, 65536));
});

test("fail-writes: blocks copied before room ran out stay saved", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take(1, failWrites);
  area.denySlots(28);
  host.front(0, WRITE, 0, 2 * 65536, 200);
  host.run();
  assert.is(host.frontResults.get(0), ENOSPC);
  assert.equal(host.original, before);
  host.front(1, WRITE, 4096, 4096, 201);
  assert.equal(host.questions, [{ kind: "original", id: 1 }]);
  host.run();
  assert.equal(host.readImage(0, 65536).data, before.slice(0, 65536));
});

for (const [name, errno] of Object.entries({ EIO, ENOSPC })) {
  test(`fail-writes: a store's ${name} fails the write and loses nothing`, () => {
    const host = brokenStore(errno);
    const area = host.take(8, failWrites);
    host.front(0, WRITE, 0, 3 * 4096, 200);
    host.run();
    assert.is(host.frontResults.get(0), errno);
    assert.equal(lostRanges(area), []);
    host.fault = () => 0;
    host.front(0, WRITE, 0, 3 * 4096, 200);
    host.run();
    assert.is(host.frontResults.get(0), 3 * 4096);
  });
}

test("an unreadable block is lost under every policy, because only a write repairs it", () => {
  for (const overflow of Object.values(OverflowPolicy)) {
    const host = new FakeHost();
    const area = host.take(8, { overflow });
    host.fault = (kind) => (kind === "copy" ? EIO : 0);
    host.front(0, WRITE, 0, 4096, 200);
    host.run();
    assert.is(host.frontResults.get(0), 4096);
    assert.equal(lostRanges(area), [{ offsetBytes: 0, lengthBytes: 4096 }]);
  }
});

test("block-writes: writes wait for slots while reads continue, and the image stays right", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take(0, blockWrites);
  area.denySlots(28);
  host.front(0, WRITE, 0, 4096, 200);
  host.front(1, WRITE, 65536, 4096, 201);
  assert.equal(host.questions, []);
  assert.is(area.blockedWrites, 2);
  assert.is(host.blockedReported, 1);
  host.front(2, READ, 0, 4096);
  host.run();
  assert.is(host.frontResults.get(2), 4096);
  assert.equal(host.readImage(0, 4096).data, before.slice(0, 4096));
  host.image(1, WRITE, 131072, 4096, 9);
  assert.is(host.imageResults.get(1), ENOSPC);
  area.grantSlots(0, 1);
  host.run();
  assert.is(host.frontResults.get(0), 4096);
  assert.not(host.frontResults.has(1));
  area.grantSlots(1, 1);
  host.run();
  assert.is(host.frontResults.get(1), 4096);
  assert.is(area.blockedWrites, 0);
  assert.equal(lostRanges(area), []);
  assert.equal(host.readImage(0, 131072).data, before.slice(0, 131072));
});

test("block-writes: after its time a write continues and its blocks are lost, until slots are granted", () => {
  const host = new FakeHost();
  const area = host.take(0, blockWrites);
  host.front(0, WRITE, 0, 4096, 200);
  area.denySlots(28);
  area.tick();
  area.tick();
  assert.is(area.blockedWrites, 1);
  area.tick();
  host.run();
  assert.is(host.frontResults.get(0), 4096);
  assert.equal(host.faults, [28]);
  host.front(1, WRITE, 65536, 4096, 201);
  host.run();
  assert.is(host.frontResults.get(1), 4096);
  assert.equal(lostRanges(area).length, 2);
  area.grantSlots(0, 1);
  host.front(2, WRITE, 8192, 4096, 202);
  host.run();
  area.denySlots(28);
  host.front(3, WRITE, 131072, 4096, 203);
  assert.is(area.blockedWrites, 1);
});

test("block-writes: a broken store is retried at each tick", () => {
  const host = brokenStore(EIO);
  const area = host.take(8, blockWrites);
  host.front(0, WRITE, 0, 8192, 200);
  host.run();
  assert.is(area.blockedWrites, 1);
  area.tick();
  host.run();
  assert.is(area.blockedWrites, 1);
  host.fault = () => 0;
  area.tick();
  host.run();
  assert.is(host.frontResults.get(0), 8192);
  assert.equal(lostRanges(area), []);
});

test("block-writes: a store that stays broken finally loses the blocks", () => {
  const host = brokenStore(ENOSPC);
  const area = host.take(8, blockWrites);
  host.front(0, WRITE, 0, 8192, 200);
  host.run();
  for (let tick = 0; tick < 3; tick++) {
    assert.not(host.frontResults.has(0));
    area.tick();
    host.run();
  }
  assert.is(host.frontResults.get(0), 8192);
  assert.equal(lostRanges(area), [{ offsetBytes: 0, lengthBytes: 8192 }]);
});

test("block-writes: the end of the snapshot releases all writes at once", () => {
  const host = new FakeHost();
  const area = host.take(0, blockWrites);
  area.denySlots(28);
  host.front(0, WRITE, 0, 4096, 200);
  host.front(1, WRITE, 65536, 65536, 201);
  host.engine.dropArea();
  assert.is(host.closed, 1);
  host.run();
  assert.is(host.frontResults.get(0), 4096);
  assert.is(host.frontResults.get(1), 65536);
  assert.is(area.blockedWrites, 0);
});

test("block-writes: a hold is drained despite blocked writes, and holds them when they wake", () => {
  const host = new FakeHost();
  const area = host.take(0, blockWrites);
  const drained = host.drained;
  area.denySlots(28);
  host.front(0, WRITE, 0, 4096, 200);
  host.engine.hold();
  assert.is(host.drained, drained + 1);
  area.grantSlots(0, 1);
  host.run();
  assert.not(host.frontResults.has(0));
  host.engine.release();
  host.run();
  assert.is(host.frontResults.get(0), 4096);
});

test.run();
