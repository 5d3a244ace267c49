import {
  AreaState,
  BlockState,
  DiffArea,
  DiffAreaMap,
  OverflowPolicy,
  RequestOp,
  type TrackerGeometry,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";
import { damageIn, lostRanges, touchedChunks } from "./whole-maps.js";

const BLOCK = 512;
const ENOSPC = 28;
const ENOMEM = 12;
const EIO = 5;
/** Chunks whose entries, of 12 bytes, begin in a slice of 128 KiB. */
const SLICE_CHUNKS = 10_923;
/** Three slices, of chunks of one block. */
const GEOMETRY: TrackerGeometry = {
  capacityBytes: 30_000 * BLOCK,
  logicalBlockBytes: BLOCK,
  chunkShift: 9,
  blockShift: 9,
};
const INDEX_BYTES = 8192;
const GARBAGE = 0x5a;

/** A device in a snapshot; the parts of its map without memory are full of garbage. */
class SparseHost extends FakeHost {
  readonly asked: number[] = [];
  readonly buffer: ArrayBuffer;
  readonly area: DiffArea;
  private readonly hasMemory = new Set<number>();

  constructor(overflow: number = OverflowPolicy.BREAK_SNAPSHOT) {
    super({ geometry: GEOMETRY });
    this.buffer = new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY));
    const map = DiffAreaMap.create(this.buffer, GEOMETRY, undefined, false);
    new Uint8Array(this.buffer, INDEX_BYTES).fill(GARBAGE);
    this.area = new DiffArea(map, { lowWaterSlots: 0, overflow, blockedTicksMax: 2 });
    this.area.grantSlots(0, 1000);
    this.engine.attachArea(this.area);
    this.engine.hold();
    this.engine.switchAndRelease();
  }

  override requestMapSlice(slice: number): void {
    this.asked.push(slice);
  }

  /** As fallocate does: parts that have memory, of the slice before, keep their content. */
  grant(slice: number): void {
    for (const { offsetBytes, lengthBytes } of this.area.map.slices.ranges(slice)) {
      for (let at = offsetBytes; at < offsetBytes + lengthBytes; at += 4096) {
        if (!this.hasMemory.has(at)) new Uint8Array(this.buffer, at, 4096).fill(0);
        this.hasMemory.add(at);
      }
    }
    this.area.grantMemory(slice);
  }

  write(tag: number, chunk: number, blocks = 1): void {
    this.front(tag, RequestOp.WRITE, chunk * BLOCK, blocks * BLOCK, 0xab);
    this.run();
  }

  /** Bytes of the image, or the error. */
  imageOf(chunk: number, blocks = 1): number | Uint8Array {
    const { result, data } = this.readImage(chunk * BLOCK, blocks * BLOCK);
    return result < 0 ? result : data;
  }
}

const { original } = new FakeHost({ geometry: GEOMETRY });

/** The old data of the original. */
function before(chunk: number, blocks = 1): Uint8Array {
  return original.slice(chunk * BLOCK, (chunk + blocks) * BLOCK);
}

test("a first write waits for the memory of its slice, which is asked for once", () => {
  const host = new SparseHost();
  host.write(0, 5);
  host.write(1, 6);
  assert.equal(host.asked, [0]);
  assert.is(host.frontResults.get(0), undefined);
  assert.equal(host.imageOf(5), before(5));
  host.grant(0);
  host.run();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.is(host.frontResults.get(1), BLOCK);
  assert.equal(host.imageOf(5, 2), before(5, 2));
  host.write(2, 7);
  assert.equal(host.asked, [0]);
  assert.is(host.frontResults.get(2), BLOCK);
});

test("a write across two slices waits for the memory of both", () => {
  const host = new SparseHost();
  const chunk = SLICE_CHUNKS - 1;
  host.write(0, chunk, 2);
  assert.equal(host.asked, [0]);
  host.grant(0);
  host.run();
  assert.equal(host.asked, [0, 1]);
  assert.is(host.frontResults.get(0), undefined);
  host.grant(1);
  host.run();
  assert.is(host.frontResults.get(0), 2 * BLOCK);
  assert.equal(host.imageOf(chunk, 2), before(chunk, 2));
});

test("reads of the image take no memory, not even full passes", () => {
  const host = new SparseHost();
  for (let chunk = 0; chunk < 30_000; chunk += 100) {
    assert.equal(host.imageOf(chunk, 100), before(chunk, 100));
  }
  assert.equal(touchedChunks(host.area.map), []);
  assert.equal(lostRanges(host.area), []);
  assert.is(damageIn(host.area.map), undefined);
  assert.equal(host.asked, []);
});

test("without memory the snapshot loses that slice only, for good", () => {
  const host = new SparseHost();
  host.write(0, 3);
  host.grant(0);
  host.run();
  host.write(1, SLICE_CHUNKS + 7);
  host.area.denyMemory(1, ENOSPC);
  host.run();
  assert.is(host.frontResults.get(1), BLOCK);
  assert.equal(host.faults, [ENOSPC]);
  const lost = { offsetBytes: SLICE_CHUNKS * BLOCK, lengthBytes: SLICE_CHUNKS * BLOCK };
  const { map } = host.area;
  assert.equal(lostRanges({ map }), [lost]);
  assert.is(map.losses.bytes, lost.lengthBytes);
  assert.is(map.losses.ranges, 1);
  assert.is(host.imageOf(SLICE_CHUNKS), -EIO);
  assert.is(host.imageOf(2 * SLICE_CHUNKS - 1), -EIO);
  assert.equal(host.imageOf(SLICE_CHUNKS - 1), before(SLICE_CHUNKS - 1));
  assert.equal(host.imageOf(2 * SLICE_CHUNKS), before(2 * SLICE_CHUNKS));
  assert.equal(host.imageOf(3), before(3));

  // A late grant changes nothing, and neither does the next process.
  host.asked.length = 0;
  host.write(2, SLICE_CHUNKS + 8);
  assert.is(host.frontResults.get(2), BLOCK);
  assert.equal(host.asked, []);
  const found = DiffAreaMap.open(host.buffer, false);
  assert.equal(lostRanges({ map: found }), [lost]);
  assert.is(found.stateAt(SLICE_CHUNKS + 8, 0), BlockState.LOST);
  assert.is(found.state, AreaState.ACTIVE);
  assert.is(found.faultErrno, ENOSPC);
});

test("an image write into a lost slice fails instead of writing nothing", () => {
  const host = new SparseHost();
  host.write(0, 3);
  host.area.denyMemory(0, ENOMEM);
  host.run();
  host.image(0, RequestOp.WRITE, 4 * BLOCK, BLOCK, 1);
  host.run();
  assert.is(host.imageResults.get(0), -ENOMEM);
});

test("fail-writes: lack of memory fails a write, and the next write asks for memory again", () => {
  const host = new SparseHost(OverflowPolicy.FAIL_WRITES);
  host.write(0, 3);
  host.area.denyMemory(0, ENOSPC);
  host.run();
  assert.is(host.frontResults.get(0), -ENOSPC);
  assert.equal(host.asked, [0, 0]);
  host.grant(0);
  host.write(1, 3);
  assert.is(host.frontResults.get(1), BLOCK);
  assert.equal(host.imageOf(3), before(3));
  assert.equal(host.faults, []);
});

test("block-writes: writes continue when memory is granted", () => {
  const host = new SparseHost(OverflowPolicy.BLOCK_WRITES);
  host.write(0, 3);
  host.area.denyMemory(0, ENOSPC);
  assert.is(host.area.blockedWrites, 1);
  assert.equal(host.asked, [0, 0]);
  host.area.tick();
  host.area.denyMemory(0, ENOSPC);
  host.area.tick();
  assert.equal(host.asked, [0, 0, 0]);
  host.grant(0);
  host.run();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.equal(host.imageOf(3), before(3));
});

test("block-writes: writes continue after their time if memory is never granted", () => {
  const host = new SparseHost(OverflowPolicy.BLOCK_WRITES);
  host.write(0, 3);
  host.area.denyMemory(0, ENOSPC);
  for (let tick = 0; tick < 4; tick++) host.area.tick();
  host.run();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.is(host.imageOf(3), -EIO);
});

test("a discard of the image waits for memory, and does less without it", () => {
  const host = new SparseHost();
  host.image(0, RequestOp.DISCARD, 10 * BLOCK, 4 * BLOCK);
  assert.equal(host.asked, [0]);
  assert.is(host.imageResults.get(0), undefined);
  host.grant(0);
  assert.is(host.imageResults.get(0), 0);
  assert.equal(host.imageOf(10), new Uint8Array(BLOCK));
  host.image(0, RequestOp.DISCARD, 2 * SLICE_CHUNKS * BLOCK, BLOCK);
  host.area.denyMemory(2, ENOSPC);
  assert.is(host.imageResults.get(0), 0);
  assert.equal(host.imageOf(2 * SLICE_CHUNKS), before(2 * SLICE_CHUNKS));
});

test("an old denial costs a later write nothing if there is memory by then", () => {
  const host = new SparseHost();
  host.image(0, RequestOp.DISCARD, 10 * BLOCK, 4 * BLOCK);
  host.area.denyMemory(0, ENOSPC);
  assert.is(host.imageResults.get(0), 0);
  assert.equal(host.asked, [0, 0]);
  host.area.denyMemory(0, ENOSPC);
  host.write(0, 3);
  assert.equal(host.asked, [0, 0, 0]);
  host.grant(0);
  host.run();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.equal(host.imageOf(3), before(3));
  assert.equal(host.faults, []);
});

test("a snapshot that ends releases requests that wait for memory", () => {
  const host = new SparseHost();
  host.write(0, 3);
  host.engine.dropArea();
  host.run();
  assert.is(host.frontResults.get(0), BLOCK);
  assert.is(host.closed, 1);
  host.area.denyMemory(0, ENOSPC);
});

test("slices have room for all entries and hole bits, and nothing else", () => {
  const { map } = new SparseHost().area;
  const used = new Uint8Array(DiffAreaMap.byteLength(GEOMETRY));
  for (let slice = 0; slice < map.slices.count; slice++) {
    for (const { offsetBytes, lengthBytes } of map.slices.ranges(slice)) {
      assert.is(offsetBytes % 4096, 0);
      assert.is(lengthBytes % 4096, 0);
      used.fill(1, offsetBytes, offsetBytes + lengthBytes);
    }
  }
  assert.is(used.indexOf(1), INDEX_BYTES);
  assert.is(used.indexOf(0, INDEX_BYTES), -1);
});

test.run();
