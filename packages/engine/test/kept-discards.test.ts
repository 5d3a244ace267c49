/** Discards of blocks that a snapshot still needs: kept back, and issued after its end. */
import {
  Geometry,
  KeptDiscards,
  OverflowPolicy,
  RequestOp,
  type TrackerGeometry,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";
import { lostRanges } from "./whole-maps.js";

const { READ, WRITE, DISCARD, WRITE_ZEROES } = RequestOp;
const BLOCK = 4096;
const CBT_BLOCK = 65536;
const SIZE = 64 * BLOCK;
const MIB = 2 ** 20;

const kinds = (host: FakeHost) => host.questions.map(({ kind }) => kind);

/** Blocks that the CBT map shows as changed, and as discarded, after a take at this moment. */
function afterTake(host: FakeHost): { changed: number[]; discarded: number[] } {
  host.take();
  const map = new Uint8Array(host.cbt.blockCount);
  const discards = new Uint8Array(map.length);
  host.cbt.readFrozen(map, 0, map.length, discards);
  const { changesNumber } = host.cbt.info();
  const blocks = [...map.keys()];
  const changed = blocks.filter((block) => map[block] === changesNumber && discards[block] === 0);
  return { changed, discarded: blocks.filter((block) => discards[block] === 1) };
}

test("a discard of the whole device copies nothing, changes nothing, and is issued when the area is gone", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take(0);
  host.front(0, DISCARD, 0, SIZE);
  assert.is(host.frontResults.get(0), 0, "answered at once");
  assert.equal(kinds(host), [], "nothing is asked for");
  assert.is(host.engine.keptDiscardBytes, SIZE);
  assert.ok(host.readImage(0, SIZE).data.every((byte, at) => byte === before[at]));
  host.front(1, READ, 0, BLOCK);
  host.run();
  assert.is(host.frontData[1][0], before[0], "the front still shows what is there");
  assert.is(host.engine.stats.snapshot().copiedBytes, 0);
  assert.is(lostRanges(host.engine.area!).length, 0);
  host.engine.dropArea();
  assert.equal(kinds(host), ["kept"]);
  host.run();
  assert.ok(host.original.every((byte) => byte === 0));
  assert.is(host.engine.keptDiscardBytes, 0);
  assert.is(host.engine.stats.snapshot().sentDiscardBytes, SIZE);
});

test("with forgetsDiscards no discard is issued after its answer", () => {
  const host = new FakeHost({ forgetsDiscards: true });
  const before = host.original.slice();
  host.take();
  host.front(0, DISCARD, 0, SIZE);
  assert.is(host.frontResults.get(0), 0);
  assert.is(host.engine.keptDiscardBytes, 0);
  host.engine.dropArea();
  assert.equal(kinds(host), []);
  assert.equal(host.original, before);
  assert.equal(afterTake(host), { changed: [], discarded: [] });
});

test("a kept discard is a change only when it is issued", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, 3 * CBT_BLOCK);
  host.engine.dropArea();
  const slice = host.engine.keptSlice;
  assert.equal([slice.inFlight, slice.lengthBytes[0]], [true, 3 * CBT_BLOCK]);
  assert.ok(host.cbt.isMarked(0), "marked before it is issued");
  host.run();
  assert.equal(afterTake(host), { changed: [], discarded: [0, 1, 2] });
});

test("discards still kept at the next take stay kept: the image shows the original", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.front(0, DISCARD, 0, SIZE);
  host.engine.hold();
  host.engine.dropArea();
  assert.equal(kinds(host), [], "nothing is sent while writes are held");
  host.attach();
  host.engine.switchAndRelease();
  assert.equal(kinds(host), []);
  assert.ok(host.readImage(0, SIZE).data.every((byte, at) => byte === before[at]));
  assert.is(host.engine.keptDiscardBytes, SIZE);
  host.engine.dropArea();
  host.run();
  assert.ok(host.original.every((byte) => byte === 0));
});

test("slices begin when a hold without a take ends, and continue after one that failed", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, BLOCK);
  host.front(1, DISCARD, 8 * BLOCK, BLOCK);
  host.engine.hold();
  host.engine.dropArea();
  host.engine.release();
  assert.equal(kinds(host), ["kept"]);
  host.fault = () => -5;
  host.answer();
  host.fault = () => 0;
  host.run();
  assert.equal([host.original[0] > 0, host.original[8 * BLOCK]], [true, 0]);
  assert.is(host.engine.stats.snapshot().sentDiscardBytes, BLOCK);
  assert.is(host.engine.keptDiscardBytes, 0, "it was a hint");
});

test("a write removes its blocks, also one in flight when the discard arrives", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, SIZE);
  host.front(1, WRITE, 2 * BLOCK + 512, 512, 77);
  host.run();
  assert.is(host.engine.keptDiscardBytes, SIZE - BLOCK);

  host.front(2, WRITE, 9 * BLOCK, 2 * BLOCK, 88);
  host.answer("copy");
  assert.equal(kinds(host), ["original"]);
  host.front(3, DISCARD, 8 * BLOCK, 4 * BLOCK);
  assert.is(host.frontResults.get(3), 0);
  host.run();
  host.engine.dropArea();
  host.run();
  assert.is(host.original[2 * BLOCK + 512], 77);
  assert.is(host.original[9 * BLOCK], 88);
  assert.is(host.original[11 * BLOCK - 1], 88);
  assert.equal([host.original[8 * BLOCK], host.original[11 * BLOCK]], [0, 0]);
});

test("a write whose copy is in flight when the discard arrives keeps its data", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, BLOCK, 99);
  assert.equal(kinds(host), ["copy"]);
  host.front(1, DISCARD, 0, SIZE);
  host.run();
  host.engine.dropArea();
  host.run();
  assert.equal([host.original[0], host.original[BLOCK]], [99, 0]);
});

test("writes to the slice in flight wait for it, others do not", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, 4 * BLOCK);
  host.engine.dropArea();
  assert.equal(kinds(host), ["kept"]);
  host.front(1, WRITE, 3 * BLOCK, 2 * BLOCK, 55);
  host.front(2, WRITE, 4 * BLOCK, BLOCK, 44);
  host.front(3, READ, 0, BLOCK);
  assert.equal(kinds(host), ["kept", "original", "original"]);
  host.answer("original");
  assert.is(host.frontResults.get(2), BLOCK);
  host.answer("kept");
  assert.equal(kinds(host), ["original"]);
  host.run();
  assert.equal([host.original[3 * BLOCK - 1], host.original[3 * BLOCK]], [0, 55]);
  // The write waited, marked, while the slice ended: its block holds data.
  assert.equal(afterTake(host).discarded, []);
});

test("a hold waits for the slice in flight, and its waiters are held then", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, 4 * BLOCK);
  host.engine.dropArea();
  host.front(1, WRITE, 0, BLOCK, 55);
  host.engine.hold();
  assert.is(host.drained, 1, "that of the take");
  host.answer("kept");
  assert.equal([host.drained, kinds(host)], [2, []]);
  host.engine.release();
  host.run();
  assert.is(host.original[0], 55);
});

test("write-zeroes is not a hint", () => {
  const host = new FakeHost();
  const area = host.take();
  host.front(0, DISCARD, 0, 4 * BLOCK);
  host.front(1, WRITE_ZEROES, BLOCK, BLOCK);
  assert.equal(kinds(host), ["copy"]);
  host.run();
  host.front(2, READ, BLOCK, BLOCK);
  host.run();
  assert.is(host.frontData[2][0], 0);
  assert.is(lostRanges(area).length, 0);
  assert.is(host.engine.keptDiscardBytes, 3 * BLOCK);
});

test("a discard of saved blocks is issued at once", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 2 * BLOCK, 11);
  host.run();
  host.front(1, DISCARD, 0, 2 * BLOCK);
  assert.equal(kinds(host), ["original"]);
  host.run();
  assert.is(host.original[0], 0);
  assert.is(host.engine.keptDiscardBytes, 0);
});

test("partial blocks are never kept, except the short last one", () => {
  const host = new FakeHost({ geometry: { capacityBytes: SIZE - 512 } });
  host.take();
  host.front(0, DISCARD, 512, BLOCK - 512);
  assert.equal([host.frontResults.get(0), host.engine.keptDiscardBytes], [0, 0]);
  host.front(1, DISCARD, SIZE - BLOCK - 512, BLOCK);
  assert.is(host.engine.keptDiscardBytes, BLOCK);
  host.engine.dropArea();
  const { offsetBytes, lengthBytes } = host.engine.keptSlice;
  assert.equal([offsetBytes[0], lengthBytes[0]], [SIZE - BLOCK, BLOCK - 512]);
});

test("no overflow policy ever applies to a discard", () => {
  for (const overflow of Object.values(OverflowPolicy)) {
    const host = new FakeHost();
    const area = host.take(0, { overflow });
    area.denySlots(28);
    host.front(0, DISCARD, 0, SIZE);
    assert.equal([host.frontResults.get(0), area.blockedWrites], [0, 0]);
    assert.is(lostRanges(area).length, 0);
  }
});

test("blocks that were marked by hand are not discarded", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, SIZE);
  host.engine.markDirty(BLOCK, BLOCK);
  assert.is(host.engine.keptDiscardBytes, SIZE - BLOCK);
});

test("kept discards can be forgotten, and a slice in flight still ends", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, DISCARD, 0, BLOCK);
  host.front(1, DISCARD, 8 * BLOCK, BLOCK);
  host.engine.dropArea();
  host.engine.forgetKept();
  host.run();
  assert.equal([host.original[0], host.original[8 * BLOCK] > 0], [0, true]);
});

function geometryOf(capacityBytes: number): TrackerGeometry {
  return { capacityBytes, logicalBlockBytes: 512, chunkShift: 20, blockShift: 12 };
}

test("slices are bounded, cut at multiples of their size, and all issued", () => {
  const capacityBytes = 160 * MIB;
  const host = new FakeHost({ geometry: geometryOf(capacityBytes) });
  host.take();
  host.front(0, DISCARD, BLOCK, 150 * MIB);
  host.front(1, DISCARD, 152 * MIB, 8 * MIB);
  host.engine.dropArea();
  const slices: number[][] = [];
  while (host.questions.length > 0) {
    assert.equal(kinds(host), ["kept"], "one at a time");
    const { offsetBytes, lengthBytes } = host.engine.keptSlice;
    slices.push([offsetBytes[0], offsetBytes[0] + lengthBytes[0]]);
    host.answer();
  }
  assert.equal(slices, [
    [BLOCK, 64 * MIB],
    [64 * MIB, 128 * MIB],
    [128 * MIB, 150 * MIB + BLOCK],
    [152 * MIB, 160 * MIB],
  ]);
});

test("the bits of any device fit into 64 MiB", () => {
  for (const shift of [20, 30, 40, 41, 42, 46, 50]) {
    const kept = new KeptDiscards(new Geometry({ ...geometryOf(2 ** shift), chunkShift: 26 }));
    assert.ok(kept.granuleCount / 8 <= 64 * 2 ** 20, `2^${shift}`);
    assert.is(kept.granuleBytes, Math.max(4096, 2 ** (shift - 29)));
  }
});

test("the bits agree with a plain array, also at the ends of pages", () => {
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const count = 3 * 2 ** 18 - 77;
  const capacityBytes = count * 512;
  const geometry = { capacityBytes, logicalBlockBytes: 512, chunkShift: 16, blockShift: 9 };
  const kept = new KeptDiscards(new Geometry(geometry));
  const model = new Uint8Array(count);
  for (let round = 0; round < 400; round++) {
    const long = random(3) === 0 ? count : 5000;
    const first = Math.max(0, random(3) * 2 ** 18 - 40 + random(80));
    const length = Math.min(1 + random(long), count - first);
    if (random(3) > 0) {
      kept.keep(first * 512, length * 512);
      model.fill(1, first, first + length);
    } else {
      kept.forget(first * 512, length * 512);
      model.fill(0, first, first + length);
    }
    assert.is(
      kept.count,
      model.reduce((sum, bit) => sum + bit, 0),
    );
    const expected = model.indexOf(1);
    assert.is(kept.first(), expected);
    if (expected >= 0) {
      const pageEnd = (Math.floor(expected / 2 ** 18) + 1) * 2 ** 18;
      const clear = model.indexOf(0, expected);
      const end = Math.min(pageEnd, clear < 0 ? count : clear);
      assert.is(kept.runEnd(expected, count + 9), end);
      assert.ok(kept.has(expected) && !(end < pageEnd && end < count && kept.has(end)));
    }
  }
  kept.clear();
  assert.equal([kept.count, kept.first(), kept.has(5)], [0, -1, false]);
});

test.run();
