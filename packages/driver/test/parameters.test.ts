import { DiffAreaMap } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  blockShiftOf,
  chunkShiftOf,
  fixParameters,
  PARAMETER_DEFAULTS,
} from "../dist/parameters.js";

const GIB = 2 ** 30;
const TIB = 2 ** 40;
const device = { capacityBytes: 64 * GIB, ioMinBytes: 512, logicalBlockBytes: 512 };

test("defaults are the module's, and need no adjustment", () => {
  assert.equal(fixParameters({}, GIB), {
    parameters: PARAMETER_DEFAULTS,
    portionBytes: GIB,
    notes: [],
  });
  assert.is(chunkShiftOf(device, PARAMETER_DEFAULTS), 18);
});

test("contradictory parameters are adjusted and reported", () => {
  const given = {
    trackingBlockMinimumShift: 20,
    trackingBlockMaximumShift: 18,
    chunkMinimumShift: 10,
    chunkMaximumShift: 11,
    chunkMaximumCountShift: 50,
  };
  const { parameters, portionBytes, notes } = fixParameters(given, 5000);
  assert.is(parameters.trackingBlockMaximumShift, 20);
  assert.is(parameters.chunkMinimumShift, 12);
  assert.is(parameters.chunkMaximumShift, 12);
  assert.is(parameters.chunkMaximumCountShift, 40);
  assert.is(portionBytes, 8192);
  assert.equal(notes, [
    "tracking_block_maximum_shift is 20 instead of 18",
    "chunk_minimum_shift is 12 instead of 10",
    "chunk_maximum_shift is 12 instead of 11",
    "chunk_maximum_count_shift is 40 instead of 50",
    "diff_storage_minimum is 8192 instead of 5000",
  ]);
});

test("the portion is rounded to whole chunks", () => {
  assert.is(fixParameters({}, 5 * 2 ** 18 + 1).portionBytes, 5 * 2 ** 18);
});

test("chunks grow with the device's smallest I/O and its size, up to the largest", () => {
  const raid = { ...device, ioMinBytes: 2 ** 20 };
  assert.is(chunkShiftOf(raid, PARAMETER_DEFAULTS), 20);
  assert.is(chunkShiftOf(raid, { ...PARAMETER_DEFAULTS, chunkMaximumShift: 19 }), 19);
  const few = { ...PARAMETER_DEFAULTS, chunkMaximumCountShift: 10 };
  assert.is(chunkShiftOf(device, few), 26);
  assert.is(chunkShiftOf({ ...device, capacityBytes: GIB }, few), 20);
  assert.is(chunkShiftOf({ ...device, capacityBytes: GIB + 512 }, few), 21);
});

test("a chunk holds a logical block", () => {
  const small = { ...PARAMETER_DEFAULTS, chunkMinimumShift: 12, chunkMaximumShift: 12 };
  assert.is(chunkShiftOf({ ...device, logicalBlockBytes: 65536 }, small), 16);
});

/** Sizes of chunks and blocks at the defaults, and of the map in MiB. */
function sizesOf(capacityBytes: number): number[] {
  const sized = { ...device, capacityBytes };
  const chunkShift = chunkShiftOf(sized, PARAMETER_DEFAULTS);
  const blockShift = blockShiftOf(sized, chunkShift);
  const mapBytes = DiffAreaMap.byteLength({ ...sized, chunkShift, blockShift });
  return [chunkShift, blockShift, Math.ceil(mapBytes / 2 ** 20)];
}

test("blocks, then chunks, grow with the device only if its map would otherwise be too large", () => {
  assert.equal(sizesOf(TIB), [18, 12, 97]);
  assert.equal(sizesOf(42 * TIB), [18, 12, 4033]);
  assert.equal(sizesOf(43 * TIB), [18, 13, 2753]);
  assert.equal(sizesOf(63 * TIB), [18, 13, 4033]);
  assert.equal(sizesOf(64 * TIB), [19, 13, 3073]);
  assert.equal(sizesOf(512 * TIB), [22, 16, 3073]);
  for (let capacityBytes = TIB; capacityBytes < 990 * TIB; capacityBytes += 7 * TIB + 512) {
    assert.ok(sizesOf(capacityBytes).every(Number.isInteger), String(capacityBytes));
  }
});

test("given chunks keep their size; if no map for them fits, blocks stay small", () => {
  const large = { ...device, capacityBytes: 50 * TIB };
  assert.is(blockShiftOf(large, 18), 13);
  assert.is(blockShiftOf(large, 22), 12);
  assert.is(blockShiftOf({ ...large, logicalBlockBytes: 65536 }, 26), 16);
  assert.is(blockShiftOf({ ...large, capacityBytes: 2 ** 53 - 512 }, 18), 12);
});

test.run();
