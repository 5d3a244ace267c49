import { closeSync, ftruncateSync } from "node:fs";
import { BlockState, DiffAreaMap, type TrackerGeometry } from "@blksnap/engine";
import type { BackingFile } from "@blksnap/ublk";
import { createMemoryFile, MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PARAMETER_DEFAULTS } from "../../dist/parameters.js";
import { LEGACY_SLOT_BYTES } from "../../dist/snapshot/area-setup.js";
import { geometryOf, geometryWith } from "../../dist/tracker/geometry.js";

function geometry(capacityBytes: number, parameters = PARAMETER_DEFAULTS) {
  const params = { capacityBytes, logicalBlockBytes: 512, ioMinBytes: 512, readOnly: false };
  const backing = { path: "/dev/sdb", kind: "block", params } as unknown as BackingFile;
  return geometryOf(backing, parameters);
}

function codeOf(capacityBytes: number): string {
  try {
    return String(geometry(capacityBytes).capacityBytes);
  } catch (error) {
    return (error as { code: string }).code;
  }
}

test("devices whose size cannot be tracked are refused by name", () => {
  assert.is(codeOf(2 ** 18 - 512), "DEVICE_TOO_SMALL");
  assert.is(codeOf(2 ** 53 - 512), String(2 ** 53 - 512));
  for (const bytes of [2 ** 53, 2 ** 53 + 512, 2 ** 60, Number.NaN]) {
    assert.is(codeOf(bytes), "DEVICE_TOO_LARGE", String(bytes));
  }
});

test("a larger default of chunks does not change small devices and old records", () => {
  const parameters = { ...PARAMETER_DEFAULTS, chunkMinimumShift: 20 };
  const { capacityBytes, chunkShift } = geometry(2 ** 18, parameters);
  assert.equal([capacityBytes, chunkShift], [2 ** 18, 20]);
  assert.throws(() => geometry(2 ** 18 - 512, parameters), /less than 262144/);
  assert.is(LEGACY_SLOT_BYTES, 2 ** 18);
});

test("a tracker that continues has the blocks that fit its chunks", () => {
  const wanted = geometry(43 * 2 ** 40);
  assert.equal([wanted.chunkShift, wanted.blockShift], [18, 13]);
  const { chunkShift, blockShift } = geometryWith(wanted, 20);
  assert.equal([chunkShift, blockShift], [20, 12]);
});

/** Only few of its pages are ever touched. */
function withSparseMap(of: TrackerGeometry, use: (buffer: ArrayBuffer) => void): void {
  const lengthBytes = DiffAreaMap.byteLength(of);
  const fd = createMemoryFile("map");
  ftruncateSync(fd, lengthBytes);
  const memory = MappedMemory.file(fd, 0, lengthBytes);
  closeSync(fd);
  try {
    use(memory.buffer);
  } finally {
    memory.unmap();
  }
}

for (const tebibytes of [42, 63, 64]) {
  test(`the map of ${tebibytes} TiB covers the last block like the first`, () => {
    const of = geometry(tebibytes * 2 ** 40);
    withSparseMap(of, (buffer) => {
      const made = DiffAreaMap.create(buffer, of);
      const { chunkCount, blocksPerChunk } = made.geometry;
      const last = chunkCount - 1;
      made.setSlot(0, 7);
      made.setSaved(0, 0, 1);
      made.setSlot(last, 2 ** 31 - 2);
      made.setSaved(last, blocksPerChunk - 2, blocksPerChunk - 1);
      made.setLost(last, blocksPerChunk - 1, blocksPerChunk);
      const map = DiffAreaMap.open(buffer);
      assert.equal([map.slotOf(0), map.slotOf(1), map.slotOf(last)], [7, -1, 2 ** 31 - 2]);
      const { UNSAVED, DATA, LOST } = BlockState;
      const states = (chunk: number, ...blocks: number[]) =>
        blocks.map((block) => map.stateAt(chunk, block));
      assert.equal(states(0, 0, 1), [DATA, UNSAVED]);
      const end = blocksPerChunk;
      assert.equal(states(last, end - 3, end - 2, end - 1), [UNSAVED, DATA, LOST]);
      assert.equal(states(last - 1, 0, end - 1), [UNSAVED, UNSAVED]);
    });
  });
}

test.run();
