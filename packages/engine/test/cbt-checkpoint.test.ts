import { CbtMap } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { GENERATION } from "./fake-host.js";

const BLOCKS = 100;
const CAPACITY = BLOCKS * 65536;

function make(): CbtMap {
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16));
  return CbtMap.create(buffer, { capacityBytes: CAPACITY, blockShift: 16, generation: GENERATION });
}

function restored(map: CbtMap): CbtMap {
  const checkpoint = new Uint8Array(CbtMap.checkpointBytes(map.blockCount));
  map.checkpoint().read(checkpoint, 0);
  return CbtMap.restore(new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16)), checkpoint);
}

/** Frozen values now and after the next take: everything that a reader of the map can see. */
function visible(map: CbtMap): number[][] {
  const now = new Uint8Array(BLOCKS);
  map.readFrozen(now, 0, BLOCKS);
  const copy = restored(map);
  copy.switch();
  const next = new Uint8Array(BLOCKS);
  copy.readFrozen(next, 0, BLOCKS);
  return [[...now], [...next]];
}

test("a checkpoint holds what is frozen and what is live", () => {
  const map = make();
  map.markBlocks(3, 4);
  map.switch();
  map.markBlocks(5, 1);
  map.markBlocksBoth(90, 10);
  const copy = restored(map);
  assert.equal(copy.info(), map.info());
  assert.equal(visible(copy), visible(map));
  assert.equal(visible(copy)[0].slice(3, 8), [1, 1, 1, 1, 0]);
  assert.equal(visible(copy)[1].slice(3, 8), [1, 1, 2, 1, 0]);
});

test("a restored map shows a discarded block as changed", () => {
  const map = make();
  map.markBlocks(0, 2);
  map.recordDiscard(0, 131072);
  map.switch();
  const discarded = new Uint8Array(BLOCKS);
  const values = new Uint8Array(BLOCKS);
  restored(map).readFrozen(values, 0, BLOCKS, discarded);
  assert.equal([...values.slice(0, 3)], [1, 1, 0]);
  assert.equal([...discarded.slice(0, 3)], [0, 0, 0]);
});

test("marks made between two parts hide no frozen value", () => {
  // For each place to cut the parts: marks of all kinds at that moment, of blocks changed before and of others.
  for (let cut = 4096; cut <= 4096 + 2 * BLOCKS; cut++) {
    const map = make();
    map.markBlocks(0, 50);
    map.switch();
    map.markBlocks(25, 50);
    const source = map.checkpoint();
    const bytes = new Uint8Array(source.length);
    source.read(bytes.subarray(0, cut), 0);
    map.markBlocks(0, 30);
    map.markBlocksBoth(60, 30);
    source.read(bytes.subarray(cut), cut);
    const copy = CbtMap.restore(new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16)), bytes);
    // As the journal would repeat them.
    copy.markBlocks(0, 30);
    copy.markBlocksBoth(60, 30);
    assert.equal(visible(copy), visible(map), `cut at ${cut}`);
  }
});

test("a switch or a reset between two parts is detected", () => {
  for (const between of [(map: CbtMap) => map.switch(), (map: CbtMap) => map.reset(4)]) {
    const map = make();
    const source = map.checkpoint();
    const bytes = new Uint8Array(source.length);
    source.read(bytes.subarray(0, 4100), 0);
    between(map);
    assert.throws(() => source.read(bytes.subarray(4100), 4100), /was switched/);
  }
});

test("bytes that are not a checkpoint of this device are refused", () => {
  const map = make();
  const checkpoint = new Uint8Array(CbtMap.checkpointBytes(map.blockCount));
  map.checkpoint().read(checkpoint, 0);
  const buffer = () => new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16));
  assert.throws(() => CbtMap.restore(buffer(), checkpoint.subarray(0, 100)), /too short/);
  assert.throws(() => CbtMap.restore(buffer(), checkpoint.subarray(0, 4200)), /disagree/);
  const other = new ArrayBuffer(CbtMap.byteLength(CAPACITY * 100, 16));
  assert.throws(() => CbtMap.restore(other, checkpoint), /disagree/);
  checkpoint.fill(0);
  assert.throws(() => CbtMap.restore(buffer(), checkpoint), /no map/);
  assert.throws(() => map.markBlocks(99, 2), /of 100/);
  assert.throws(() => map.markBlocks(-1, 1), /of 100/);
});

test.run();
