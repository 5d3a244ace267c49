import { CbtMap, CbtReason, cbtBlockShift } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { codeOf } from "./engine-error.js";
import { GENERATION } from "./fake-host.js";

const BLOCK = 65536;
const BLOCKS = 10;

function make(): { map: CbtMap; buffer: ArrayBuffer } {
  const capacityBytes = BLOCK * BLOCKS - 512;
  const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16));
  const map = CbtMap.create(buffer, { capacityBytes, blockShift: 16, generation: GENERATION });
  return { map, buffer };
}

function write(map: CbtMap, block: number, both = false): void {
  const offset = Float64Array.of(block * BLOCK);
  const length = Float64Array.of(512);
  if (both) map.markRequestBoth(offset, length, 0);
  else map.markRequest(offset, length, 0);
}

function frozen(map: CbtMap): number[] {
  const into = new Uint8Array(BLOCKS);
  map.readFrozen(into, 0, BLOCKS);
  return [...into];
}

test("a new map is empty, with numbers 1 and 0", () => {
  const { map } = make();
  const info = map.info();
  assert.equal(frozen(map), new Array(BLOCKS).fill(0));
  assert.is(info.changesNumber, 0);
  assert.is(info.blockCount, BLOCKS);
  assert.is(info.reason, CbtReason.ATTACHED);
  assert.equal(info.generation, GENERATION);
});

test("marks show after the next take, with the number of their interval", () => {
  const { map } = make();
  write(map, 3);
  assert.is(frozen(map)[3], 0);
  map.switch();
  assert.is(frozen(map)[3], 1);
  write(map, 3);
  write(map, 4);
  assert.equal(frozen(map).slice(3, 5), [1, 0]);
  map.switch();
  assert.equal(frozen(map).slice(3, 5), [2, 2]);
  map.switch();
  assert.equal(frozen(map).slice(3, 5), [2, 2]);
});

test("an image write and markRange show at once and after the next take", () => {
  const { map } = make();
  map.switch();
  map.switch();
  write(map, 1);
  write(map, 1, true);
  map.markRange(5 * BLOCK, BLOCK + 1);
  assert.equal(frozen(map), [0, 2, 0, 0, 0, 2, 2, 0, 0, 0]);
  map.switch();
  assert.equal(frozen(map), [0, 3, 0, 0, 0, 3, 3, 0, 0, 0]);
});

/** A discard of a range of blocks, or of bytes, that no write overlaps. */
function discard(map: CbtMap, from: number, to: number): void {
  const offset = Float64Array.of(from * BLOCK);
  const length = Float64Array.of((to - from) * BLOCK);
  map.markRequest(offset, length, 0);
  map.recordDiscard(offset[0], length[0]);
}

function discarded(map: CbtMap): number[] {
  const kinds = new Uint8Array(BLOCKS);
  map.readFrozen(new Uint8Array(BLOCKS), 0, BLOCKS, kinds);
  return [...kinds.keys()].filter((block) => kinds[block] === 1);
}

test("whole blocks of a discard show as discarded from the next take on", () => {
  const { map } = make();
  discard(map, 1.5, 4.25);
  assert.equal(discarded(map), []);
  map.switch();
  assert.equal(frozen(map).slice(0, 6), [0, 1, 1, 1, 1, 0]);
  assert.equal(discarded(map), [2, 3]);
  map.switch();
  assert.equal(discarded(map), [2, 3]);
});

test("the last block, cut by the device's end, can be discarded whole", () => {
  const { map } = make();
  discard(map, 9, BLOCKS - 512 / BLOCK);
  discard(map, 8.5, 8.75);
  map.switch();
  assert.equal(discarded(map), [9]);
});

test("a write after the discard makes it a change, before and after a take", () => {
  const { map } = make();
  discard(map, 0, 4);
  write(map, 1);
  map.switch();
  assert.equal(discarded(map), [0, 2, 3]);
  write(map, 2);
  discard(map, 3, 4);
  write(map, 3);
  assert.equal(discarded(map), [0, 2, 3]);
  map.switch();
  assert.equal(discarded(map), [0]);
  discard(map, 2, 3);
  assert.equal(discarded(map), [0]);
  map.switch();
  assert.equal(discarded(map), [0, 2]);
});

test("an image write and markRange make a discard a change at once", () => {
  const { map } = make();
  discard(map, 0, 4);
  map.switch();
  write(map, 1, true);
  map.markRange(2 * BLOCK, 512);
  assert.equal(discarded(map), [0, 3]);
  map.switch();
  assert.equal(discarded(map), [0, 3]);
});

test("a reset forgets discards, and they outlive the process", () => {
  const { map, buffer } = make();
  discard(map, 5, 6);
  map.switch();
  assert.equal(discarded(CbtMap.open(buffer, { owner: true })), [5]);
  map.reset(CbtReason.REQUESTED);
  map.switch();
  assert.equal(discarded(map), []);
});

test("numbers run out after 254 takes: a new generation with empty maps", () => {
  const { map } = make();
  write(map, 0);
  for (let take = 0; take < 254; take++) map.switch();
  assert.is(map.info().changesNumber, 254);
  assert.is(frozen(map)[0], 1);
  map.switch();
  const info = map.info();
  assert.is(info.changesNumber, 0);
  assert.is(info.reason, CbtReason.ROLLOVER);
  assert.not.equal(info.generation, GENERATION);
  assert.equal(frozen(map), new Array(BLOCKS).fill(0));
  write(map, 0);
  map.switch();
  assert.is(frozen(map)[0], 1);
});

test("a second map over the same bytes reads what the owner marks", () => {
  const { map, buffer } = make();
  const reader = CbtMap.open(buffer);
  write(map, 9);
  map.switch();
  assert.is(frozen(reader)[9], 1);
  assert.equal(reader.info(), map.info());
});

/** Runs `read` while another thread resets the map. @param whilePaused called while the reader pauses */
function readWhile(whilePaused: (pauses: number) => void, read: () => void): number {
  const { wait } = Atomics;
  let pauses = 0;
  Atomics.wait = (() => {
    whilePaused(++pauses);
    return "timed-out";
  }) as typeof wait;
  try {
    read();
  } finally {
    Atomics.wait = wait;
  }
  return pauses;
}

test("a reader waits for a reset in progress", () => {
  for (const what of ["numbers", "blocks"]) {
    const { map, buffer } = make();
    const sequence = new Int32Array(buffer, 0, 16);
    sequence[7]++;
    const isDone = (pauses: number) => {
      if (pauses === 3) sequence[7]++;
    };
    const pauses = readWhile(isDone, () => {
      if (what === "numbers") assert.is(map.info().changesNumber, 0);
      else assert.is(frozen(map).length, BLOCKS);
    });
    assert.is(pauses, 3);
  }
});

test("a reader gets CBT_BUSY if a reset does not end", () => {
  const { map, buffer } = make();
  const sequence = new Int32Array(buffer, 0, 16);
  sequence[7]++;
  readWhile(
    () => undefined,
    () => {
      assert.is(
        codeOf(() => frozen(map)),
        "CBT_BUSY",
      );
      assert.is(
        codeOf(() => map.info()),
        "CBT_BUSY",
      );
    },
  );
  frozen(CbtMap.open(buffer, { owner: true }));
});

test("an interrupted reset is completed, with another generation", () => {
  const { map, buffer } = make();
  write(map, 2);
  map.switch();
  const words = new Int32Array(buffer, 0, 16);
  words[7]++;
  const owner = CbtMap.open(buffer, { owner: true });
  assert.is(owner.info().reason, CbtReason.UNCLEAN);
  assert.not.equal(owner.info().generation, GENERATION);
  assert.equal(frozen(owner), new Array(BLOCKS).fill(0));
});

test("a mark beyond the device makes the map unreadable until the next take", () => {
  const { map } = make();
  write(map, BLOCKS);
  assert.is(
    codeOf(() => frozen(map)),
    "CBT_CORRUPTED",
  );
  assert.ok(map.info().corrupted);
  map.switch();
  assert.is(map.info().reason, CbtReason.CORRUPTED);
  assert.not.ok(map.info().corrupted);
});

test("ranges are checked", () => {
  const { map } = make();
  const into = new Uint8Array(BLOCKS);
  assert.is(
    codeOf(() => map.readFrozen(into, 5, 6)),
    "CBT_RANGE",
  );
  assert.is(
    codeOf(() => map.readFrozen(into, -1, 1)),
    "CBT_RANGE",
  );
  assert.is(
    codeOf(() => map.readFrozen(into, 11, -1)),
    "CBT_RANGE",
  );
  assert.is(
    codeOf(() => map.readFrozen(new Uint8Array(1), 0, 2)),
    "CBT_RANGE",
  );
  assert.is(
    codeOf(() => map.markRange(map.capacityBytes - 512, 513)),
    "RANGE",
  );
  assert.is(
    codeOf(() => map.markRange(-1, 1)),
    "RANGE",
  );
  map.markRange(map.capacityBytes - 1, 1);
  map.markRange(map.capacityBytes, 0);
});

test("bytes that are not a map are refused", () => {
  assert.is(
    codeOf(() => CbtMap.open(new ArrayBuffer(100))),
    "MAP_FORMAT",
  );
  assert.is(
    codeOf(() => CbtMap.open(new ArrayBuffer(12288))),
    "MAP_FORMAT",
  );
  const { buffer } = make();
  assert.is(
    codeOf(() => CbtMap.open(buffer.slice(0, 8192))),
    "MAP_GEOMETRY",
  );
  new Int32Array(buffer)[3] = 7;
  assert.is(
    codeOf(() => CbtMap.open(buffer)),
    "MAP_GEOMETRY",
  );
  const options = { capacityBytes: BLOCK, blockShift: 16, generation: GENERATION };
  assert.is(
    codeOf(() => CbtMap.create(new ArrayBuffer(64), options)),
    "MAP_SIZE",
  );
  const odd = { ...options, blockShift: 3 };
  assert.is(
    codeOf(() => CbtMap.create(new ArrayBuffer(64), odd)),
    "BAD_GEOMETRY",
  );
});

test("the block size follows the module's rule", () => {
  const gib = 2 ** 30;
  const sizes: [number, number][] = [
    [gib, 16],
    [128 * gib, 16],
    [128 * gib + 512, 17],
    [1024 * gib, 19],
    [16 * 1024 * gib, 23],
    [128 * 1024 * gib, 26],
    [1024 * 1024 * gib, 26],
  ];
  for (const [capacity, shift] of sizes) assert.is(cbtBlockShift(capacity), shift, `${capacity}`);
  assert.is(cbtBlockShift(gib, { minimumShift: 20 }), 20);
  assert.is(cbtBlockShift(gib, { maximumCount: 4 }), 26);
  assert.is(cbtBlockShift(gib, { maximumCount: 4, maximumShift: 20 }), 20);
  assert.is(
    codeOf(() => cbtBlockShift(0)),
    "BAD_GEOMETRY",
  );
});

test.run();
