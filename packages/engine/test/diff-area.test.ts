import {
  AreaState,
  BlockState,
  DiffArea,
  DiffAreaMap,
  LostRangeScan,
  type TrackerGeometry,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { codeOf } from "./engine-error.js";
import { lostRanges, makeMap, SMALL, touchedChunks, usedSlots } from "./whole-maps.js";

test("a map has its area's id; a map of version 1, which has none, can adopt one once", () => {
  const id = Uint8Array.from({ length: 16 }, (_, index) => index + 1);
  const buffer = new ArrayBuffer(DiffAreaMap.byteLength(SMALL));
  const made = DiffAreaMap.create(buffer, SMALL, id);
  made.setState(AreaState.ACTIVE);
  made.setSlot(3, 7);
  assert.equal(DiffAreaMap.open(buffer).id, id);
  assert.throws(() => made.adopt(id), /has an id/);

  // As an older daemon wrote it: version 1, and nothing in place of the id.
  new Int32Array(buffer)[1] = 1;
  new Uint8Array(buffer, 48, 16).fill(0);
  const old = DiffAreaMap.open(buffer);
  assert.is(old.id, undefined);
  old.adopt(id);
  const adopted = DiffAreaMap.open(buffer);
  assert.equal(adopted.id, id);
  assert.equal([adopted.state, adopted.slotOf(3), adopted.faultErrno], [AreaState.ACTIVE, 7, 0]);
  new Int32Array(buffer)[1] = 3;
  assert.is(
    codeOf(() => DiffAreaMap.open(buffer)),
    "MAP_FORMAT",
  );
});

test("unused slots are visited as extents, the next one first", () => {
  const area = new DiffArea(makeMap().map, { extentsMax: 2 });
  const waiting = () => {
    const extents: number[][] = [];
    area.slots.forEachExtent((firstSlot, count) => extents.push([firstSlot, count]));
    return extents;
  };
  assert.equal(waiting(), []);
  area.grantSlots(40, 2);
  area.grantSlots(96, 3);
  area.slots.acquire();
  assert.equal(waiting(), [
    [41, 1],
    [96, 3],
  ]);
  area.slots.acquire();
  area.slots.acquire();
  area.grantSlots(7, 1);
  assert.equal(waiting(), [
    [97, 2],
    [7, 1],
  ]);
});

test("a new map has nothing saved", () => {
  const { map } = makeMap();
  assert.is(map.state, AreaState.PREPARED);
  assert.is(map.slotOf(0), -1);
  assert.is(map.nextUnsaved(7, 3, 64), 3);
  assert.is(map.nextSaved(7, 3, 64), 64);
  assert.is(map.stateAt(1000, 5), BlockState.UNSAVED);
});

test("saved runs are found across words", () => {
  const { map } = makeMap();
  map.setSaved(3, 30, 40);
  assert.is(map.nextSaved(3, 0, 64), 30);
  assert.is(map.nextUnsaved(3, 30, 64), 40);
  assert.is(map.nextUnsaved(3, 31, 35), 35);
  map.setSaved(3, 0, 64);
  assert.is(map.nextUnsaved(3, 0, 64), 64);
  assert.is(map.nextSaved(2, 0, 64), 64);
  assert.is(map.nextSaved(4, 0, 64), 64);
});

test("every small range agrees with a plain bitmap, for all block sizes", () => {
  for (const blockShift of [9, 12, 13, 16]) {
    const { map } = makeMap({ ...SMALL, logicalBlockBytes: 512, blockShift });
    const blocks = 2 ** (18 - blockShift);
    const plain = new Array<boolean>(blocks).fill(false);
    let seed = 1;
    const below = (limit: number) => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return (seed >> 8) % limit;
    };
    for (let round = 0; round < 200; round++) {
      const from = below(blocks);
      const to = from + 1 + below(Math.min(blocks - from, 9));
      map.setSaved(1, from, to);
      plain.fill(true, from, to);
      const at = below(blocks);
      const free = plain.indexOf(false, at);
      const used = plain.indexOf(true, at);
      assert.is(map.nextUnsaved(1, at, blocks), free < 0 ? blocks : free);
      assert.is(map.nextSaved(1, at, blocks), used < 0 ? blocks : used);
    }
  }
});

test("lost, saved, released and unsaved blocks have different states", () => {
  const { map } = makeMap();
  map.setSlot(5, 17);
  map.setSaved(5, 0, 8);
  map.setLost(5, 8, 10);
  assert.is(map.stateAt(5, 7), BlockState.DATA);
  assert.is(map.stateAt(5, 8), BlockState.LOST);
  assert.is(map.stateAt(5, 10), BlockState.UNSAVED);
  assert.is(map.stateEnd(5, 0, 64), 8);
  assert.is(map.stateEnd(5, 8, 64), 10);
  map.setSaved(5, 8, 10);
  assert.is(map.stateAt(5, 8), BlockState.DATA);
  assert.is(map.release(5), 17);
  assert.is(map.slotOf(5), -1);
  assert.is(map.stateAt(5, 0), BlockState.ZERO);
  assert.is(map.stateEnd(5, 0, 64), 64);
  assert.is(map.release(6), -1);
});

test("another process finds the whole state again", () => {
  const { map, buffer } = makeMap();
  map.setState(AreaState.ACTIVE);
  map.setFaultErrno(28);
  map.setSlot(0, 0);
  map.setSlot(1000, 2 ** 31 - 2);
  map.setSaved(1000, 0, 6);
  map.setLost(511, 62, 64);
  map.setLost(512, 0, 1);
  map.setLost(1000, 5, 6);
  const again = DiffAreaMap.open(buffer);
  assert.is(again.state, AreaState.ACTIVE);
  assert.is(again.faultErrno, 28);
  assert.ok(again.geometry.equals(SMALL));
  const area = new DiffArea(again);
  assert.equal(usedSlots(again), [
    [0, 0],
    [2 ** 31 - 2, 1000],
  ]);
  assert.equal(lostRanges(area), [
    { offsetBytes: 512 * 262144 - 8192, lengthBytes: 12288 },
    { offsetBytes: 1000 * 262144 + 5 * 4096, lengthBytes: 1024 },
  ]);
});

test("touched chunks are found whatever the entry size", () => {
  for (const [chunkShift, blockShift] of [
    [12, 12],
    [18, 12],
    [26, 12],
    [26, 9],
  ] as const) {
    const capacityBytes = 2 ** chunkShift * 300;
    const { map } = makeMap({ capacityBytes, logicalBlockBytes: 512, chunkShift, blockShift });
    const chosen = [0, 1, 127, 128, 129, 255, 299];
    for (const chunk of chosen) map.setSlot(chunk, chunk);
    assert.equal(touchedChunks(map), chosen, `chunk shift ${chunkShift}`);
  }
});

test("sizes and formats are checked", () => {
  const huge = { ...SMALL, capacityBytes: 2 ** 46 };
  assert.is(
    codeOf(() => DiffAreaMap.byteLength(huge)),
    "MAP_TOO_LARGE",
  );
  assert.is(
    codeOf(() => DiffAreaMap.create(new ArrayBuffer(4096), SMALL)),
    "MAP_SIZE",
  );
  assert.is(
    codeOf(() => DiffAreaMap.open(new ArrayBuffer(64))),
    "MAP_FORMAT",
  );
  assert.is(
    codeOf(() => DiffAreaMap.open(new ArrayBuffer(8192))),
    "MAP_FORMAT",
  );
  const { buffer } = makeMap();
  assert.is(
    codeOf(() => DiffAreaMap.open(buffer.slice(0, 8192))),
    "MAP_GEOMETRY",
  );
  for (const wrong of [
    { capacityBytes: 1000 },
    { capacityBytes: -512 },
    { logicalBlockBytes: 500 },
    { blockShift: 8 },
    { blockShift: 17 },
    { chunkShift: 27 },
    { chunkShift: 11 },
    { logicalBlockBytes: 8192 },
    { chunkShift: 12, capacityBytes: 2 ** 43 },
  ]) {
    assert.is(
      codeOf(() => DiffAreaMap.byteLength({ ...SMALL, ...wrong })),
      "BAD_GEOMETRY",
    );
  }
});

test("with stores that hang in turn, all fragmented, there is room for the grants of the others", () => {
  const storeCount = 8;
  const lowWaterSlots = 32;
  const area = new DiffArea(makeMap().map, { storeShift: 20, storeCount, lowWaterSlots });
  const { slots } = area;
  const next = new Int32Array(storeCount);
  const grantOne = (store: number): void => {
    // No two slots are adjacent.
    area.grantSlots(store * 2 ** 20 + 2 * next[store]++, 1);
  };
  const extents = (): number => {
    let count = 0;
    slots.forEachExtent(() => count++);
    return count;
  };
  for (let round = 0; round < 3; round++) {
    for (let store = 0; store < storeCount; store++) {
      // As long as the engine asks; then grants besides: slots used again, and unasked ones.
      while (slots.countOutside(area.hungStores) <= lowWaterSlots) grantOne(store);
      if (round === 0) for (let beside = 0; beside < 33; beside++) grantOne(store);
      area.noteLate(store * 2 ** 20);
    }
    assert.is(slots.acquire(area.hungStores), -1);
    assert.is(slots.countOutside(area.hungStores), 0);
    for (let store = 0; store < storeCount; store++) area.noteAnswered(store * 2 ** 20);
  }
  assert.is(extents(), storeCount * (lowWaterSlots + 1 + 33));
  assert.is(slots.countOutside(0), slots.freeCount);
});

test("slots are handed out in order, once each, and denials hold until a grant", () => {
  const { map } = makeMap();
  const { slots } = new DiffArea(map, { extentsMax: 2 });
  assert.is(slots.acquire(), -1);
  slots.grant(40, 2);
  slots.grant(42, 1);
  slots.grant(100, 1);
  assert.is(slots.freeCount, 4);
  assert.is(
    codeOf(() => slots.grant(7, 1)),
    "SLOTS_FULL",
  );
  // A grant beyond the bound is a denial to requests that wait.
  assert.is(slots.deniedErrno, 28);
  assert.not.ok(slots.asked);
  assert.equal(
    [slots.acquire(), slots.acquire(), slots.acquire(), slots.acquire(), slots.acquire()],
    [40, 41, 42, 100, -1],
  );
  slots.deny(28);
  assert.is(slots.deniedErrno, 28);
  slots.grant(1, 1);
  assert.is(slots.deniedErrno, 0);
  assert.is(
    codeOf(() => slots.grant(-1, 1)),
    "ASSERTION",
  );
  assert.is(
    codeOf(() => slots.grant(2 ** 31 - 2, 2)),
    "ASSERTION",
  );
});

/** Chunks far apart and in rows, in a map with so many words per chunk. */
function scattered(geometry: TrackerGeometry): { map: DiffAreaMap; chunks: number[] } {
  const { map } = makeMap(geometry);
  const chunks: number[] = [];
  for (let chunk = 0; chunk < map.geometry.chunkCount; chunk += chunk % 100 < 3 ? 1 : 997) {
    map.setSlot(chunk, chunk);
    chunks.push(chunk);
  }
  return { map, chunks };
}

test("recorded chunks are visited in steps that do not grow with the map, each once", () => {
  for (const chunkShift of [14, 17, 18, 26]) {
    const capacityBytes = 2 ** (chunkShift + 16) - 512;
    const { map, chunks } = scattered({ ...SMALL, capacityBytes, chunkShift });
    for (const unitsMax of [1, 7, 1000, Number.MAX_SAFE_INTEGER]) {
      const visited: number[] = [];
      let steps = 0;
      for (let chunk = 0; chunk < map.geometry.chunkCount; steps++) {
        let units = 0;
        const next = map.visitTouched(chunk, unitsMax, (one) => {
          if (visited.at(-1) === one - 1 && one % 2 === 0 && units > 0) return false;
          visited.push(one);
          return ++units <= unitsMax;
        });
        assert.ok(next >= chunk && units <= unitsMax, `${units} of ${unitsMax}`);
        chunk = next;
      }
      assert.equal(visited, chunks);
      assert.ok(steps >= chunks.length / unitsMax, "one long step");
    }
  }
});

test("losses are counted as they happen, across chunks, up to the short last block", () => {
  const { map } = makeMap();
  const area = new DiffArea(map);
  const last = map.geometry.chunkCount - 1;
  const counted = () => [map.losses.bytes, map.losses.ranges];
  map.setLost(3, 62, 64);
  map.setLost(4, 0, 1);
  assert.equal(counted(), [3 * 4096, 1]);
  map.setLost(4, 2, 3);
  map.setLost(4, 1, 2);
  assert.equal(counted(), [5 * 4096, 1]);
  map.setLost(last, 4, 6);
  assert.equal(counted(), [6 * 4096 + 1024, 2]);
  map.setSlot(4, 9);
  map.setSaved(4, 1, 2);
  assert.equal(counted(), [5 * 4096 + 1024, 3]);
  map.release(4);
  assert.equal(counted(), [3 * 4096 + 1024, 2]);
  assert.equal(lostRanges(area), [
    { offsetBytes: 3 * 262144 + 62 * 4096, lengthBytes: 8192 },
    { offsetBytes: last * 262144 + 4 * 4096, lengthBytes: 4096 + 1024 },
  ]);
});

test("the first lost ranges are found in steps, at most as many as were asked for", () => {
  const { map } = makeMap();
  for (let chunk = 0; chunk < 1000; chunk++) map.setLost(chunk, 5, 6);
  const all = lostRanges({ map });
  assert.is(all.length, 1000);
  const scan = new LostRangeScan(map, 100);
  let steps = 0;
  for (; !scan.isDone; steps++) scan.step(10);
  assert.equal(scan.ranges, all.slice(0, 100));
  assert.ok(steps > 10 && steps < 60, `${steps} steps`);
});

test.run();
