/** Hold, take, roll back, drop, and requests that are refused. */
import { CbtMap, DiffArea, DiffAreaMap, RequestOp, TrackerEngine } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { codeOf } from "./engine-error.js";
import { FakeHost, GENERATION } from "./fake-host.js";

const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES } = RequestOp;

function areaFor(host: FakeHost): DiffArea {
  const buffer = new ArrayBuffer(DiffAreaMap.byteLength(host.geometry));
  const area = new DiffArea(DiffAreaMap.create(buffer, host.geometry), { lowWaterSlots: 0 });
  area.grantSlots(0, 100);
  return area;
}

test("a hold drains writes in flight, holds new ones, and lets reads and flushes pass", () => {
  const host = new FakeHost();
  host.front(0, WRITE, 0, 512, 200);
  host.engine.hold();
  assert.is(host.drained, 0);
  host.front(1, WRITE, 0, 512, 201);
  host.front(2, READ, 0, 512);
  host.front(3, FLUSH, 0, 0);
  assert.equal(
    host.questions.map((question) => question.id),
    [0, 2, 3],
  );
  host.run();
  assert.is(host.drained, 1);
  assert.is(host.original[0], 200);
  host.engine.release();
  host.run();
  assert.is(host.original[0], 201);
});

test("a held write comes after the take: it is copied, and marked in the next interval", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.engine.attachArea(areaFor(host));
  host.engine.hold();
  assert.is(host.drained, 1);
  host.front(0, WRITE, 0, 4096, 200);
  host.engine.switchAndRelease();
  host.run();
  const frozen = new Uint8Array(4);
  host.cbt.readFrozen(frozen, 0, 4);
  assert.equal([...frozen], [0, 0, 0, 0]);
  assert.equal(host.readImage(0, 4096).data, before.slice(0, 4096));
  host.engine.dropArea();
  host.take();
  host.cbt.readFrozen(frozen, 0, 4);
  assert.equal([...frozen], [2, 0, 0, 0]);
});

test("a write whose copy ends during a hold is not issued before the release", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 4096, 200);
  host.engine.hold();
  host.run();
  assert.not.equal(host.original[0], 200);
  host.engine.release();
  host.run();
  assert.is(host.original[0], 200);
});

test("a rolled back take has no effect", () => {
  const host = new FakeHost();
  host.engine.attachArea(areaFor(host));
  host.engine.hold();
  host.front(0, WRITE, 0, 4096, 200);
  host.engine.release();
  host.engine.dropArea();
  assert.is(host.closed, 1);
  assert.equal(host.questions, [{ kind: "original", id: 0 }]);
  assert.is(host.cbt.info().changesNumber, 0);
});

test("a drop lets parked writes continue and ends image requests", () => {
  const host = new FakeHost({ copiesMax: 1 });
  const area = host.take(1);
  host.image(0, READ, 0, 4096);
  host.front(0, WRITE, 0, 4096, 200);
  host.front(1, WRITE, 0, 4096, 201);
  host.front(2, WRITE, 65536, 4096, 202);
  host.front(3, WRITE, 8192, 4096, 203);
  host.image(1, WRITE, 131072, 4096, 9);
  host.engine.dropArea();
  assert.is(host.imageResults.get(1), -5);
  const issued = host.questions.filter((question) => question.kind === "original");
  assert.equal(issued.map((question) => question.id).sort(), [1, 2, 3]);
  assert.is(host.closed, 0);
  host.run();
  assert.is(host.closed, 1);
  assert.is(host.imageResults.get(0), -5);
  assert.is(host.frontResults.get(0), 4096);
  area.grantSlots(7, 1);
  host.image(2, READ, 0, 512);
  assert.is(host.imageResults.get(2), -5);
  host.take();
});

test("an area resumes in another engine", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take();
  host.front(0, WRITE, 0, 4096, 200);
  host.run();
  const next = new FakeHost();
  next.original.set(host.original);
  for (const [slot, data] of host.slots) next.slots.set(slot, data);
  next.engine.resumeArea(new DiffArea(area.map));
  assert.equal(next.readImage(0, 8192).data, before.slice(0, 8192));
  assert.is(next.wanted.length, 1);
});

test("calls that do not fit the state are refused", () => {
  const host = new FakeHost();
  const { engine } = host;
  assert.is(
    codeOf(() => engine.release()),
    "BAD_STATE",
  );
  assert.is(
    codeOf(() => engine.dropArea()),
    "BAD_STATE",
  );
  assert.is(
    codeOf(() => engine.switchAndRelease()),
    "BAD_STATE",
  );
  assert.is(
    codeOf(() => engine.resumeArea(areaFor(host))),
    "BAD_STATE",
  );
  engine.hold();
  assert.is(
    codeOf(() => engine.hold()),
    "BAD_STATE",
  );
  assert.is(
    codeOf(() => engine.switchAndRelease()),
    "BAD_STATE",
  );
  engine.attachArea(areaFor(host));
  assert.is(
    codeOf(() => engine.attachArea(areaFor(host))),
    "BAD_STATE",
  );
  const other = new FakeHost({ geometry: { capacityBytes: 65536 } });
  assert.is(
    codeOf(() => other.engine.attachArea(areaFor(host))),
    "MAP_GEOMETRY",
  );
});

test("the options of an engine are checked", () => {
  const host = new FakeHost();
  const capacityBytes = 4096;
  const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16));
  const cbt = CbtMap.create(buffer, { capacityBytes, blockShift: 16, generation: GENERATION });
  const options = {
    frontDepth: 1,
    imageDepth: 1,
    copyWindowBytes: 4096,
    copiesMax: 1,
    runsMax: 1,
    cbt,
  };
  assert.is(
    codeOf(() => new TrackerEngine(host.geometry, host, options)),
    "MAP_GEOMETRY",
  );
  const small = { ...options, cbt: host.cbt, copyWindowBytes: 512 };
  assert.is(
    codeOf(() => new TrackerEngine(host.geometry, host, small)),
    "BAD_GEOMETRY",
  );
});

test("requests outside the device, of no sectors or of unknown kind are refused", () => {
  const host = new FakeHost();
  host.take();
  const end = host.geometry.capacityBytes;
  for (const [offset, length] of [
    [end, 512],
    [end - 512, 1024],
    [-512, 512],
    [100, 512],
    [0, 100],
    [0, 0],
  ]) {
    host.front(0, WRITE, offset, length);
    assert.is(host.frontResults.get(0), -22);
    host.image(0, READ, offset, length);
    assert.is(host.imageResults.get(0), -22);
  }
  host.front(0, 99, 0, 512);
  assert.is(host.frontResults.get(0), -95);
  host.image(0, WRITE_ZEROES, 0, 512);
  assert.is(host.imageResults.get(0), -95);
  host.image(0, FLUSH, 0, 0);
  assert.is(host.imageResults.get(0), 0);
  assert.equal(host.questions, []);
});

test("markDirty shows in both maps, and checks its range", () => {
  const host = new FakeHost();
  host.take();
  host.engine.markDirty(65536, 1);
  const frozen = new Uint8Array(2);
  host.cbt.readFrozen(frozen, 0, 2);
  assert.equal([...frozen], [0, 1]);
  assert.is(
    codeOf(() => host.engine.markDirty(host.geometry.capacityBytes, 1)),
    "RANGE",
  );
});

test("a discard ends with 0 and preserves what it wipes", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.front(0, DISCARD, 512, 65536 * 2);
  host.front(1, WRITE_ZEROES, 0, 512);
  host.run();
  assert.is(host.frontResults.get(0), 0);
  assert.is(host.frontResults.get(1), 0);
  assert.equal(host.readImage(0, before.length).data, before);
});

test.run();
