import {
  CbtMap,
  DiffArea,
  DiffAreaMap,
  type EngineIo,
  OverflowPolicy,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FreedSlots } from "../dist/freed-slots.js";

function world() {
  const told: number[][] = [];
  const granted: number[] = [];
  const due: (() => void)[] = [];
  const area = { extentsFree: 64, isRefused: false };
  const hung = new Set<number>();
  const reactor = { setTimer: (_ms: number, then: () => void) => due.push(then) };
  const slots = new FreedSlots(reactor as never, {
    report: (freed) => told.push(freed),
    grant: (slot) => granted.push(slot),
    area: () => area,
    isHung: (slot) => hung.has(slot),
  });
  const turn = () => {
    for (const then of due.splice(0)) then();
  };
  const none = () => granted.push(-1);
  return { slots, told, granted, turn, area, hung, none };
}

test("freed slots are reported in one message", () => {
  const { slots, told, granted, turn, none } = world();
  slots.add(1, false);
  slots.add(2, false);
  slots.reuse(8, none);
  turn();
  assert.equal([told, granted], [[[1, 2]], [-1]]);
});

test("freed slots of an area with a journal are not reported, and are reused", () => {
  const { slots, told, granted, turn, none } = world();
  for (let slot = 0; slot < 40; slot++) slots.add(slot, true);
  slots.reuse(10, none);
  assert.equal(granted, [], "not while the engine asks");
  turn();
  assert.is(granted.length, 10);
  slots.reuse(100, none);
  turn();
  assert.equal([granted.length, told], [40, []]);
  slots.reuse(1, none);
  assert.is(granted.pop(), -1);
});

test("an area with kept slots gives none to others, even after it has used them again", () => {
  const { slots, turn } = world();
  slots.add(1, false);
  assert.not(slots.hasKept);
  slots.add(2, true);
  slots.reuse(1);
  turn();
  assert.ok(slots.hasKept);
});

test("nothing is granted after the area's end", () => {
  const { slots, granted, turn } = world();
  slots.add(1, true);
  slots.reuse(1, () => assert.unreachable("its area has ended"));
  slots.clear();
  turn();
  assert.equal(granted, []);
});

test("an area that was refused slots gets freed ones, without asking", () => {
  const { slots, granted, turn, area } = world();
  slots.add(1, true);
  turn();
  assert.equal(granted, []);
  area.isRefused = true;
  slots.add(2, true);
  slots.add(3, true);
  assert.equal(granted, [], "not while the engine frees");
  turn();
  assert.equal(granted, [1, 2, 3]);
});

test("an area without room for them gets them later", () => {
  const { slots, granted, turn, area } = world();
  for (let slot = 0; slot < 4; slot++) slots.add(slot, true);
  area.extentsFree = 3;
  slots.reuse(4);
  turn();
  assert.equal(granted, [0]);
  area.extentsFree = 64;
  slots.reuse(4);
  turn();
  assert.equal(granted, [0, 1, 2, 3]);
});

test("an area that asks gets an answer, even without room for slots", () => {
  const { slots, granted, turn, area, none } = world();
  slots.add(0, true);
  area.extentsFree = 1;
  slots.reuse(4, none);
  assert.equal(granted, []);
  turn();
  assert.equal(granted, [-1]);
});

test("slots of a store that hangs wait until it answers", () => {
  const { slots, granted, turn, area, hung, none } = world();
  slots.add(1, true);
  hung.add(1);
  slots.reuse(4, none);
  assert.equal(granted, [-1], "at once: the stores have others");
  slots.add(2, true);
  slots.reuse(4, none);
  turn();
  assert.equal(granted, [-1, 2]);
  slots.add(3, true);
  slots.reuse(4, none);
  hung.add(3);
  turn();
  assert.equal(granted, [-1, 2, -1], "it hung meanwhile");
  area.isRefused = true;
  hung.clear();
  slots.offer();
  turn();
  assert.equal(granted, [-1, 2, -1, 1, 3]);
});

const CHUNK = 262144;
const GEOMETRY = {
  capacityBytes: 64 * CHUNK,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

/** An engine of 64 chunks in a snapshot whose stores have four slots and never more. */
function fullSnapshot() {
  const jobs: (() => void)[] = [];
  const results: number[] = [];
  const reactor = { setTimer: (_ms: number, then: () => void) => jobs.push(then) };
  const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
  const area = new DiffArea(map, {
    lowWaterSlots: 1,
    wantedSlots: 2,
    overflow: OverflowPolicy.FAIL_WRITES,
  });
  const freed = new FreedSlots(reactor as never, {
    report: () => assert.unreachable("slots of a journal's area are told"),
    grant: (slot) => area.grantSlots(slot, 1),
    area: () => area.slots,
    isHung: (slot) => area.isHung(slot),
  });
  const never = () => assert.unreachable("nothing hangs");
  const io: EngineIo = {
    submitOriginal: (tag) => jobs.push(() => engine.onOriginalDone(tag, 4096)),
    submitKept: () => assert.unreachable("nothing was discarded"),
    completeFront: (_tag, result) => results.push(result),
    completeImage: () => undefined,
    submitCopy: (copy) => jobs.push(() => engine.onCopyDone(copy, 0, 0)),
    submitRun: () => assert.unreachable("nothing is read"),
    requestMapSlice: () => undefined,
    requestSlots: (wanted) => {
      // As the device and its main thread do.
      freed.reuse(wanted, () => {
        jobs.push(() => freed.reuse(1, () => area.denySlots(28)));
      });
    },
    freeSlot: (slot) => freed.add(slot, true),
    onWritesBlocked: () => undefined,
    onDrained: () => undefined,
    onAreaFault: () => undefined,
    onCopyLate: never,
    onRunLate: never,
    onStoreHung: never,
    onStoreAnswered: never,
    onAreaClosed: () => undefined,
  };
  const { capacityBytes } = GEOMETRY;
  const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16));
  const cbt = CbtMap.create(buffer, {
    capacityBytes,
    blockShift: 16,
    generation: new Uint8Array(16),
  });
  const engine = new TrackerEngine(GEOMETRY, io, {
    frontDepth: 8,
    imageDepth: 8,
    copyWindowBytes: 2 ** 20,
    copiesMax: 32,
    runsMax: 32,
    cbt,
  });
  area.grantSlots(0, 4);
  engine.attachArea(area);
  engine.hold();
  engine.switchAndRelease();
  const run = () => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) job();
  };
  return {
    write: (chunk: number): number => {
      const { front } = engine;
      front.op[0] = RequestOp.WRITE;
      front.offsetBytes[0] = chunk * CHUNK;
      front.lengthBytes[0] = 4096;
      engine.submitFront(0);
      run();
      return results.pop() ?? 0;
    },
    discardImage: (chunk: number, count: number, isLate = false) => {
      const { image } = engine;
      image.op[0] = RequestOp.DISCARD;
      image.offsetBytes[0] = chunk * CHUNK;
      image.lengthBytes[0] = count * CHUNK;
      engine.submitImage(0);
      if (!isLate) run();
    },
  };
}

test("slots that discards of a kept image free after a refusal are reused", () => {
  const { write, discardImage } = fullSnapshot();
  for (let chunk = 0; chunk < 4; chunk++) assert.is(write(chunk), 4096);
  assert.is(write(4), -28);
  discardImage(0, 4);
  for (let chunk = 5; chunk < 9; chunk++) assert.is(write(chunk), 4096);
  assert.is(write(9), -28);
  discardImage(5, 1);
  assert.is(write(9), 4096);
  assert.is(write(10), -28);
});

test("slots that were freed while the refusal was in flight are reused, too", () => {
  const { write, discardImage } = fullSnapshot();
  for (let chunk = 0; chunk < 3; chunk++) write(chunk);
  discardImage(0, 2, true);
  for (let chunk = 3; chunk < 6; chunk++) assert.is(write(chunk), 4096);
  assert.is(write(6), -28);
});

test.run();
