/** Copies behind their writes: the order of their I/O, and what the next process does with them. */
import {
  CopyMode,
  DiffAreaMap,
  damageOfRecords,
  type EngineError,
  OverflowPolicy,
  RequestOp,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";

const { DISCARD, READ, WRITE, WRITE_ZEROES } = RequestOp;
const EIO = 5;
const ENOSPC = 28;
const BLOCK = 4096;
const PLACE_BYTES = 4 * BLOCK;

/** A host with places, in a snapshot, and the bytes that the image has to show. */
function snapshot(overflow: number = OverflowPolicy.BREAK_SNAPSHOT): [FakeHost, Uint8Array] {
  const host = new FakeHost({ placeBytes: PLACE_BYTES });
  const before = host.original.slice();
  host.take(1000, { overflow });
  return [host, before];
}

/** A host whose first blocks are being written, with their copy beside the write. */
function underWay(blocks = 1): [FakeHost, Uint8Array] {
  const [host, before] = snapshot();
  host.front(0, WRITE, 0, blocks * BLOCK, 200);
  host.answer("copyRead");
  return [host, before];
}

function kinds({ questions }: FakeHost): string {
  return questions.map(({ kind }) => kind).join(" ");
}

function imageOf(host: FakeHost, length: number = host.original.length): Uint8Array {
  const { result, data } = host.readImage(0, length);
  assert.is(result, length);
  return data;
}

for (const [first, second] of [
  ["copyWrite", "original"],
  ["original", "copyWrite"],
] as const) {
  test(`a write and its copy go side by side, and ${first} ends first: the request waits for both`, () => {
    const [host, before] = underWay();
    assert.is(kinds(host), "copyWrite original");
    host.answer(first);
    assert.not(host.frontResults.has(0));
    host.answer(second);
    assert.is(host.frontResults.get(0), BLOCK);
    assert.equal(imageOf(host), before);
    assert.is(host.engine.stats.snapshot().copiesBehind, 1);
  });
}

test("the record is set before the original is written, the saved bit after the slot is written", () => {
  const [host] = snapshot();
  const map = host.engine.area!.map;
  const { submitOriginal } = host;
  host.submitOriginal = (tag) => {
    assert.ok(map.copyRecords!.isSet(tag));
    submitOriginal.call(host, tag);
  };
  host.front(0, WRITE, 0, BLOCK, 200);
  assert.not(map.copyRecords!.isSet(0));
  host.answer("copyRead");
  host.answer("original");
  assert.is(map.nextSaved(0, 0, 1), 1);
  assert.ok(map.copyRecords!.isSet(0));
  host.answer("copyWrite");
  assert.is(map.nextSaved(0, 0, 1), 0);
  assert.not(map.copyRecords!.isSet(0));
});

test("a read of the image waits for such a copy of its blocks", () => {
  const [host, before] = underWay();
  host.image(0, READ, 0, 4 * BLOCK);
  assert.is(kinds(host), "copyWrite original");
  host.answer("original");
  host.answer("copyWrite");
  host.run();
  assert.equal(host.imageData[0], before.slice(0, 4 * BLOCK));
});

test("a read of the original that a write has overtaken is repeated from the slot", () => {
  const [host, before] = snapshot();
  host.image(0, READ, 0, 8 * BLOCK);
  host.front(0, WRITE, 2 * BLOCK, BLOCK, 200);
  host.answer("copyRead");
  host.answer("original");
  host.answer("run");
  assert.not(host.imageResults.has(0));
  assert.is(host.engine.stats.snapshot().readsGoneBack, 1);
  host.run();
  assert.is(host.imageResults.get(0), 8 * BLOCK);
  assert.equal(host.imageData[0], before.slice(0, 8 * BLOCK));
});

for (const isReversed of [false, true]) {
  const order = isReversed ? "from the last run to the first" : "in order";
  test(`a read that two writes have overtaken restarts at the first of them, answered ${order}`, () => {
    const [host, before] = snapshot();
    // A run of the original, one of the slot, and one of the original.
    host.front(0, WRITE, 3 * BLOCK, BLOCK, 99);
    host.run();
    host.image(0, READ, 0, 8 * BLOCK);
    const runs = host.questions.filter(({ kind }) => kind === "run").map(({ id }) => id);
    assert.is(runs.length, 3);
    if (isReversed) runs.reverse();
    host.front(1, WRITE, BLOCK, BLOCK, 200);
    host.front(2, WRITE, 6 * BLOCK, BLOCK, 201);
    host.answer("copyRead");
    host.answer("original");
    for (const run of runs) host.answer("run", (id) => id === run);
    host.run();
    assert.is(host.engine.stats.snapshot().readsGoneBack, 2);
    assert.is(host.imageResults.get(0), 8 * BLOCK);
    assert.equal(host.imageData[0], before.slice(0, 8 * BLOCK));
  });
}

test("a record is complete when it is set, and is cleared when its blocks are saved", () => {
  const [host] = snapshot();
  const { map } = host.engine.area!;
  const { store } = Atomics;
  const seen: unknown[] = [];
  const places = { count: 8, placeBytes: PLACE_BYTES };
  const records = new Int32Array(host.mapBuffer, DiffAreaMap.byteLength(host.geometry), 4);
  assert.is(DiffAreaMap.byteLength(host.geometry, places), host.mapBuffer.byteLength);
  const watched = (words: Int32Array, index: number, value: number): number => {
    const isState = words.byteOffset + index * 4 === records.byteOffset;
    if (isState && value !== 0) seen.push([...records.subarray(1)]);
    if (isState && value === 0) seen.push(map.nextUnsaved(1, 2, 5));
    return store(words, index, value);
  };
  Object.assign(Atomics, { store: watched });
  try {
    host.front(0, WRITE, 18 * BLOCK, 3 * BLOCK, 200);
    host.run();
  } finally {
    Object.assign(Atomics, { store });
  }
  // First block, count and chunk of the record; after it no block is unsaved.
  assert.equal(seen, [[2, 3, 1], 5]);
});

for (const isNext of [false, true]) {
  const life = isNext ? "the next process" : "the process";
  test(`blocks that ${life} rewrites from their place after their store was truncated are not lost`, () => {
    const [first, before] = underWay();
    first.answer("original");
    const host = isNext ? first.nextLife() : first;
    host.engine.loseSlots(0);
    host.run();
    while (host.engine.findLost(100));
    assert.is(host.engine.stats.snapshot().lostBlocks, 0);
    assert.equal(imageOf(host, BLOCK), before.slice(0, BLOCK));
  });
}

test("a write to the image of a block in flight waits for the block's copy", () => {
  const [host, before] = underWay();
  host.image(0, WRITE, 0, BLOCK, 77);
  host.answer("original");
  assert.not(host.imageResults.has(0));
  host.run();
  assert.is(host.imageResults.get(0), BLOCK);
  assert.equal(imageOf(host, BLOCK), new Uint8Array(BLOCK).fill(77));
  assert.equal(imageOf(host).slice(BLOCK), before.slice(BLOCK));
});

test("a failed write of a slot is retried from the place, block by block, before the block is lost", () => {
  const [host, before] = underWay(3);
  host.answer("original");
  const { copies } = host.engine;
  host.fault = (kind, id) => (kind === "copyWrite" && copies.blockStart[id]! < 2 ? -EIO : 0);
  host.run();
  assert.is(host.frontResults.get(0), 3 * BLOCK);
  host.image(1, READ, 2 * BLOCK, BLOCK);
  host.run();
  assert.equal(host.imageData[1], before.slice(2 * BLOCK, 3 * BLOCK));
  for (const block of [0, 1]) {
    host.image(1, READ, block * BLOCK, BLOCK);
    host.run();
    assert.is(host.imageResults.get(1), -EIO);
  }
  assert.equal(host.faults, [EIO]);
});

test("a store without room loses the whole copy at once", () => {
  const [host] = underWay(3);
  host.fault = (kind) => (kind === "copyWrite" ? -ENOSPC : 0);
  host.run();
  assert.is(host.frontResults.get(0), 3 * BLOCK);
  assert.is(host.engine.stats.snapshot().lostBlocks, 3);
  assert.equal(host.faults, [ENOSPC]);
});

test("a late copy loses its blocks, its write ends, and its tag loses its place", () => {
  const [host] = underWay();
  host.answer("original");
  for (let tick = 0; tick < 9; tick++) host.engine.tick();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.is(host.engine.stats.snapshot().lostBlocks, 1);
  const records = host.engine.area!.map.copyRecords!;
  assert.not(records.isSet(0));
  assert.not(records.isFree(0, BLOCK));
  assert.ok(records.isFree(1, BLOCK));
  host.answer("copyWrite");
  host.front(0, WRITE, 5 * BLOCK, BLOCK, 200);
  assert.is(kinds(host), "copy");
});

test("a hold waits for copies beside their writes, and none starts during it", () => {
  const [host] = underWay();
  host.front(1, WRITE, 3 * BLOCK, BLOCK, 200);
  const { drained: before } = host;
  host.engine.hold();
  host.answer("original");
  host.answer("copyRead");
  assert.is(kinds(host), "copyWrite copyWrite");
  assert.is(host.drained, before);
  host.run();
  assert.is(host.drained, before + 1);
  assert.is(host.frontResults.get(0), BLOCK);
  assert.not(host.frontResults.has(1));
  host.engine.release();
  host.run();
  assert.is(host.frontResults.get(1), BLOCK);
});

test("a dropped area closes when such a copy has ended, and its write continues", () => {
  const [host] = underWay();
  host.engine.dropArea();
  host.answer("original");
  assert.is(host.closed, 0);
  host.answer("copyWrite");
  assert.is(host.closed, 1);
  assert.is(host.frontResults.get(0), BLOCK);
});

test("no copy goes behind a write that can be refused, behind a write-zeroes, or beside other copies", () => {
  for (const policy of [OverflowPolicy.FAIL_WRITES, OverflowPolicy.BLOCK_WRITES]) {
    const [host] = snapshot(policy);
    host.front(0, WRITE, 0, BLOCK, 200);
    assert.is(kinds(host), "copy");
  }
  const [host] = snapshot();
  host.front(0, WRITE_ZEROES, 0, BLOCK);
  // A write over two chunks, and one of five blocks, which needs two copies.
  host.front(1, WRITE, 15 * BLOCK, 2 * BLOCK, 200);
  host.front(2, WRITE, 20 * BLOCK, 5 * BLOCK, 200);
  assert.is(kinds(host), "copy copy copy copy");
  host.run();
  assert.is(host.engine.stats.snapshot().copiesBehind, 0);
});

test("a discard of blocks that such a write still writes is not issued later", () => {
  const [host] = underWay();
  host.answer("original");
  host.front(1, DISCARD, 0, 2 * BLOCK);
  assert.is(host.frontResults.get(1), 0);
  host.run();
  host.engine.dropArea();
  host.run();
  assert.ok(host.original.subarray(0, BLOCK).every((byte) => byte === 200));
  assert.ok(host.original.subarray(BLOCK, 2 * BLOCK).every((byte) => byte === 0));
});

for (const isWritten of [false, true]) {
  test(`the next process finishes the copy that was left, with the original ${isWritten ? "" : "not "}written`, () => {
    const [dead, before] = underWay(2);
    if (isWritten) dead.answer("original");
    const host = dead.nextLife();
    assert.is(kinds(host), "copyWrite");
    assert.is(host.engine.copies.mode[host.questions[0]!.id], CopyMode.BEHIND);
    host.image(0, READ, 0, 4 * BLOCK);
    // The same request again, whose tag's place is in use.
    host.front(0, WRITE, 0, 2 * BLOCK, 200);
    assert.is(kinds(host), "copyWrite");
    host.run();
    assert.is(host.frontResults.get(0), 2 * BLOCK);
    assert.equal(host.imageData[0], before.slice(0, 4 * BLOCK));
    assert.equal(imageOf(host), before);
    assert.is(host.engine.stats.snapshot().copiesResumed, 1);
    assert.is(host.nextLife().questions.length, 0);
  });
}

test("a tag starts no copy behind its write while its place has one that was left", () => {
  const [dead, before] = underWay();
  dead.answer("original");
  const host = dead.nextLife();
  host.front(0, WRITE, 8 * BLOCK, BLOCK, 200);
  host.front(1, WRITE, 9 * BLOCK, BLOCK, 200);
  assert.is(kinds(host), "copyWrite copyRead");
  host.run();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.equal(imageOf(host), before);
});

test("the next process does not rewrite saved blocks, which the image may have changed since", () => {
  const [dead, before] = underWay(2);
  dead.answer("original");
  const { copies } = dead.engine;
  let attempts = 0;
  dead.fault = (kind, id) => {
    if (kind !== "copyWrite") return 0;
    attempts++;
    return copies.blockCount[id] === 2 ? -EIO : 0;
  };
  // First both blocks, then the first one alone; the second is in flight.
  dead.answer("copyWrite");
  dead.answer("copyWrite");
  assert.is(attempts, 2);
  dead.slots.get(dead.engine.area!.map.slotOf(0))!.fill(77, 0, BLOCK);
  const host = dead.nextLife();
  host.run();
  assert.equal(imageOf(host, BLOCK), new Uint8Array(BLOCK).fill(77));
  assert.equal(imageOf(host).slice(BLOCK), before.slice(BLOCK));
});

test("a snapshot that ends before the stores are open drops copies that were left", () => {
  const [dead] = underWay();
  dead.answer("original");
  const host = dead.nextLife();
  host.engine.dropArea();
  host.fault = () => -EIO;
  host.run();
  assert.is(host.closed, 1);
});

test("a map with places has another version, and damage to its records is found", () => {
  const [host] = underWay();
  const { mapBuffer } = host;
  const words = new Int32Array(mapBuffer);
  assert.is(words[1], 8);
  const places = { count: 8, placeBytes: PLACE_BYTES };
  assert.is(mapBuffer.byteLength, DiffAreaMap.byteLength(host.geometry, places));
  const record = new Int32Array(mapBuffer, DiffAreaMap.byteLength(host.geometry), 4);
  const damage = () => damageOfRecords(DiffAreaMap.open(mapBuffer));
  assert.is(damage(), undefined);
  const [state, first, count, chunk] = record;
  for (const [word, value] of [...record].entries()) {
    record[word] = value + 1;
    assert.match(damage()!, /damaged words/);
    record[word] = value;
  }
  const records = DiffAreaMap.open(mapBuffer).copyRecords!;
  for (const [wrongChunk, start, end] of [
    [chunk, -1, 1],
    [chunk, 16, 17],
    [chunk, first, first],
    [chunk, first, first! + 5],
    [-1, first, first! + 1],
    [4, first, first! + 1],
  ] as [number, number, number][]) {
    records.clear(0);
    records.set(0, wrongChunk, start, end);
    assert.match(damage()!, /lies nowhere/);
  }
  records.clear(0);
  records.set(0, 1, first!, first! + count!);
  assert.match(damage()!, /no slot/);
  records.clear(0);
  records.set(0, chunk!, first!, first! + count!);
  assert.is(record[0], state);
  words[11] = 0;
  assert.throws(
    () => DiffAreaMap.open(mapBuffer),
    (error: EngineError) => error.code === "MAP_GEOMETRY",
  );
});

test("records of version 7 are read, and new ones are written in the same form", () => {
  const [dead, before] = underWay();
  dead.answer("original");
  const words = new Int32Array(dead.mapBuffer);
  const record = new Int32Array(dead.mapBuffer, DiffAreaMap.byteLength(dead.geometry), 4);
  const [VERSION_BEFORE, STATE_BEFORE] = [7, 0x436f7079];
  words[1] = VERSION_BEFORE;
  record[0] = STATE_BEFORE;
  assert.is(damageOfRecords(DiffAreaMap.open(dead.mapBuffer)), undefined);
  const host = dead.nextLife();
  assert.is(kinds(host), "copyWrite");
  host.run();
  assert.equal(imageOf(host), before);
  host.front(0, WRITE, 8 * BLOCK, BLOCK, 200);
  host.answer("copyRead");
  const now = new Int32Array(host.mapBuffer, DiffAreaMap.byteLength(host.geometry), 4);
  assert.is(now[0], STATE_BEFORE);
});

test.run();
