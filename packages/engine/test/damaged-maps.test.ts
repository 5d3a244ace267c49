/** Flips every bit of small maps: each map is refused, or is still usable and claims nothing that could do harm. */
import {
  AreaState,
  BlockState,
  CbtMap,
  type CopyPlaces,
  DiffAreaMap,
  damageOfRecords,
  EngineError,
  type TrackerGeometry,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { GENERATION } from "./fake-host.js";
import { damageIn, usedSlots } from "./whole-maps.js";

const BLOCK_BYTES = 65536;
const BLOCKS = 10;
const CAPACITY_BYTES = BLOCK_BYTES * BLOCKS - 512;
const HEADER_BYTES = 4096;

/** Calls for each bit of the given bytes, with a copy of the buffer in which it is flipped. */
function forEachFlip(
  buffer: ArrayBuffer,
  firstByte: number,
  endByte: number,
  visit: (damaged: ArrayBuffer, where: string) => void,
): void {
  for (let at = firstByte; at < endByte; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const damaged = buffer.slice(0);
      new Uint8Array(damaged)[at] ^= 1 << bit;
      visit(damaged, `byte ${at}, bit ${bit}`);
    }
  }
}

/** The result of `act`, or undefined if it throws an EngineError; other exceptions pass through. */
function unlessRefused<Value>(act: () => Value): Value | undefined {
  try {
    return act();
  } catch (error) {
    if (error instanceof EngineError && error.code.startsWith("MAP_")) return undefined;
    if (error instanceof EngineError && error.code === "BAD_GEOMETRY") return undefined;
    throw error;
  }
}

function mark(map: CbtMap, block: number): void {
  map.markRequest(Float64Array.of(block * BLOCK_BYTES), Float64Array.of(512), 0);
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, index) => byte === b[index]);
}

/** A map after six takes with a mark in each interval, block 6 in the present one. */
function cbtBuffer(): ArrayBuffer {
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY_BYTES, 16));
  const options = { capacityBytes: CAPACITY_BYTES, blockShift: 16, generation: GENERATION };
  const map = CbtMap.create(buffer, options);
  for (let block = 0; block < 6; block++) {
    mark(map, block);
    map.switch();
  }
  mark(map, 6);
  return buffer;
}

test("a CBT map with a damaged header is refused, begins a new generation, or misses no change", () => {
  const KNOWN = 6;
  const outcomes = { refused: 0, anew: 0, whole: 0 };
  forEachFlip(cbtBuffer(), 0, 64, (damaged, where) => {
    const map = unlessRefused(() => CbtMap.open(damaged, { owner: true }));
    // The process that opens the map compares the size with the device's.
    if (map === undefined || map.capacityBytes !== CAPACITY_BYTES) {
      outcomes.refused++;
      return;
    }
    mark(map, 7);
    map.switch();
    if (!sameBytes(map.info().generation, GENERATION)) {
      outcomes.anew++;
      return;
    }
    const frozen = new Uint8Array(BLOCKS);
    map.readFrozen(frozen, 0, BLOCKS);
    // A backup of the sixth take asks what has changed since.
    assert.ok(frozen[6] > KNOWN && frozen[7] > KNOWN, `${where}: ${frozen}`);
    assert.ok(map.info().changesNumber > KNOWN, where);
    outcomes.whole++;
  });
  for (const [outcome, count] of Object.entries(outcomes)) assert.ok(count > 20, outcome);
});

test("a switch that a kill interrupted counts as made", () => {
  const buffer = cbtBuffer();
  const words = new Int32Array(buffer);
  const CHECK = 10;
  assert.is(words[CHECK], ~7);
  words[CHECK] = ~8;
  const map = CbtMap.open(buffer, { owner: true });
  assert.is(map.info().changesNumber, 7);
  assert.equal(map.info().generation, GENERATION);
});

test("a truncated CBT map is refused", () => {
  const buffer = cbtBuffer();
  for (let length = 0; length < buffer.byteLength; length += 512) {
    assert.is(
      unlessRefused(() => CbtMap.open(buffer.slice(0, length))),
      undefined,
    );
  }
});

const GEOMETRY: TrackerGeometry = {
  capacityBytes: 5 * 262144 + 5 * 4096,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

/** Two chunks with old data, one with a lost block, one released by the reader. */
function areaBuffer(places?: CopyPlaces): ArrayBuffer {
  const buffer = new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY, places));
  const map = DiffAreaMap.create(buffer, GEOMETRY, undefined, true, places);
  map.setState(AreaState.ACTIVE);
  map.setSlot(0, 7);
  map.setSaved(0, 3, 9);
  map.setSlot(2, 9);
  map.setSaved(2, 0, 64);
  map.setLost(3, 5, 6);
  map.setSlot(4, 11);
  map.release(4);
  return buffer;
}

/** Inspects a map as the driver does before it resumes it: the reason to refuse it, or the slots in use. */
function inspect(buffer: ArrayBuffer): number[] | undefined {
  return unlessRefused(() => {
    const map = DiffAreaMap.open(buffer);
    if (!map.geometry.equals(GEOMETRY) || map.state !== AreaState.ACTIVE) return undefined;
    if ((damageIn(map) ?? damageOfRecords(map)) !== undefined) return undefined;
    return usedSlots(map).map(([slot]) => slot);
  });
}

test("an undamaged area map is not reported as damaged", () => {
  assert.equal(inspect(areaBuffer()), [7, 9]);
});

test("an area map with a damaged header is refused", () => {
  const FAULT_BYTES = 32;
  forEachFlip(areaBuffer(), 0, FAULT_BYTES, (damaged, where) => {
    assert.is(inspect(damaged), undefined, where);
  });
});

test("an area map with damaged entries is refused, or leads to no impossible slot", () => {
  const entriesAt = 2 * HEADER_BYTES;
  const entryBytes = 16;
  const refused: string[] = [];
  forEachFlip(areaBuffer(), HEADER_BYTES, entriesAt + 6 * entryBytes, (damaged, where) => {
    const slots = inspect(damaged);
    if (slots === undefined) refused.push(where);
    else
      assert.ok(
        slots.every((slot) => slot >= 0),
        where,
      );
  });
  const refusedBits = (at: number) =>
    refused.filter((where) => where.startsWith(`byte ${at},`)).length;
  // The flags of chunk 0, except for the two bits that flags may have.
  assert.is(refusedBits(entriesAt + 4), 7);
  for (const at of [5, 6, 7]) assert.is(refusedBits(entriesAt + at), 8);
  // The sign of its slot; data without a slot, in chunk 1.
  assert.is(refusedBits(entriesAt + 3), 1);
  assert.is(refusedBits(entriesAt + entryBytes + 8), 8);
});

const PLACES: CopyPlaces = { count: 3, placeBytes: 16_384 };
const RECORD_BYTES = 16;

/** As areaBuffer(), with a copy whose blocks are partly saved, one that has ended, and a place that was never used. */
function buffersOfCopies(): { buffer: ArrayBuffer; recordsAt: number } {
  const buffer = areaBuffer(PLACES);
  const records = DiffAreaMap.open(buffer).copyRecords!;
  records.set(0, 0, 7, 11);
  records.set(1, 2, 4, 8);
  records.clear(1);
  return { buffer, recordsAt: records.offsetBytes };
}

test("an area map whose header has damaged places is refused", () => {
  const { buffer } = buffersOfCopies();
  assert.equal(inspect(buffer), [7, 9]);
  const VERSION_BYTES = [4, 8] as const;
  const PLACES_BYTES = [40, 48] as const;
  for (const [first, end] of [VERSION_BYTES, PLACES_BYTES]) {
    forEachFlip(buffer, first, end, (damaged, where) => {
      assert.is(inspect(damaged), undefined, where);
    });
  }
});

test("the record of a copy in flight is unchanged, or its map is refused", () => {
  const { buffer, recordsAt } = buffersOfCopies();
  const refused: number[] = [];
  forEachFlip(buffer, recordsAt, recordsAt + PLACES.count * RECORD_BYTES, (damaged, where) => {
    const at = Number(/\d+/.exec(where)?.[0]) - recordsAt;
    if (inspect(damaged) === undefined) {
      refused.push(at);
      return;
    }
    const records = DiffAreaMap.open(damaged).copyRecords!;
    const set = [0, 1, 2].filter((place) => records.isSet(place));
    assert.equal(set, [0], where);
    assert.equal([records.chunkOf(0), records.firstBlockOf(0), records.endBlockOf(0)], [0, 7, 11]);
  });
  // Each bit of the record in flight; of the other records, the word that says whether they are set.
  const expected = [...Array(RECORD_BYTES).keys(), 16, 17, 18, 19, 32, 33, 34, 35];
  assert.equal(
    refused,
    expected.flatMap((at) => Array(8).fill(at)),
  );
});

test("every state of a block can be read in a map with flipped bits", () => {
  const buffer = areaBuffer();
  forEachFlip(buffer, 2 * HEADER_BYTES, buffer.byteLength, (damaged, where) => {
    const map = DiffAreaMap.open(damaged);
    for (const [chunk, block] of [
      [0, 3],
      [3, 5],
      [4, 1],
      [5, 4],
    ] as const) {
      const state = map.stateAt(chunk, block);
      assert.ok(state >= BlockState.UNSAVED && state <= BlockState.ZERO, where);
      const end = map.stateEnd(chunk, block, 64);
      assert.ok(end > block && end <= 64, where);
    }
  });
});

test.run();
