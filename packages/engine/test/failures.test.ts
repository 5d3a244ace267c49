/** What happens when old data cannot be saved. */
import { CopyKind, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";
import { lostRanges } from "./whole-maps.js";

const { READ, WRITE } = RequestOp;
const EIO = -5;
const ENOSPC = -28;

test("a failed copy is retried block by block, and only the bad block is lost", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take();
  const { copies } = host.engine;
  host.fault = (kind, id) => {
    if (kind !== "copy") return 0;
    const end = copies.blockStart[id] + copies.blockCount[id];
    return copies.blockStart[id] <= 2 && end > 2 ? EIO : 0;
  };
  host.front(0, WRITE, 0, 5 * 4096, 200);
  host.run();
  assert.is(host.frontResults.get(0), 5 * 4096);
  assert.is(host.original[0], 200);
  assert.equal(lostRanges(area), [{ offsetBytes: 8192, lengthBytes: 4096 }]);
  assert.equal(host.faults, [5]);
  assert.is(host.readImage(8192, 4096).result, EIO);
  assert.equal(host.readImage(0, 8192).data, before.slice(0, 8192));
  assert.equal(host.readImage(12288, 8192).data, before.slice(12288, 20480));
});

test("no space loses all blocks of the copy at once, and the fault is reported once", () => {
  const host = new FakeHost();
  const area = host.take();
  host.fault = (kind) => (kind === "copy" ? ENOSPC : 0);
  host.front(0, WRITE, 0, 8192, 200);
  host.front(1, WRITE, 65536, 4096, 201);
  host.run();
  assert.equal(lostRanges(area), [
    { offsetBytes: 0, lengthBytes: 8192 },
    { offsetBytes: 65536, lengthBytes: 4096 },
  ]);
  assert.equal(host.faults, [28]);
  assert.is(host.frontResults.get(1), 4096);
});

test("a write waits for its slot; a denial loses the block and lets the write through", () => {
  const host = new FakeHost();
  const area = host.take(0);
  host.front(0, WRITE, 0, 4096, 200);
  host.front(1, WRITE, 4096, 4096, 201);
  assert.equal(host.questions, []);
  assert.equal(host.wanted, [256]);
  area.denySlots(28);
  assert.is(host.questions.length, 2);
  host.run();
  assert.equal(lostRanges(area), [{ offsetBytes: 0, lengthBytes: 8192 }]);
  host.front(2, WRITE, 8192, 4096, 202);
  assert.equal(host.questions, [{ kind: "original", id: 2 }]);
  host.image(0, WRITE, 65536, 4096, 3);
  assert.is(host.imageResults.get(0), ENOSPC);
  assert.is(host.wanted.length, 1);
  area.grantSlots(5, 1);
  host.run();
  host.front(3, WRITE, 131072, 4096, 203);
  assert.equal(host.questions, [{ kind: "copy", id: 0 }]);
  assert.is(host.engine.copies.slot[0], 5);
});

test("an image write of a whole lost block heals it, one of a part is an error", () => {
  const host = new FakeHost();
  const area = host.take(0);
  area.denySlots(28);
  host.front(0, WRITE, 0, 8192, 200);
  host.run();
  area.grantSlots(0, 10);
  host.image(1, WRITE, 512, 512, 9);
  assert.is(host.imageResults.get(1), EIO);
  host.image(1, WRITE, 0, 4096, 9);
  host.run();
  assert.is(host.imageResults.get(1), 4096);
  assert.equal(host.readImage(0, 4096).data, new Uint8Array(4096).fill(9));
  assert.is(host.readImage(4096, 512).result, EIO);
  assert.equal(lostRanges(area), [{ offsetBytes: 4096, lengthBytes: 4096 }]);
});

test("a failed direct image write leaves the old data, and waiting requests copy it", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.fault = (kind) => (kind === "run" ? EIO : 0);
  host.image(1, WRITE, 0, 8192, 9);
  host.front(0, WRITE, 0, 4096, 200);
  assert.is(host.questions.length, 1);
  host.answer("run");
  assert.is(host.imageResults.get(1), EIO);
  host.fault = () => 0;
  host.run();
  assert.is(host.original[0], 200);
  assert.equal(host.readImage(0, 8192).data, before.slice(0, 8192));
});

test("a failed fill of a partly written block fails the image write and loses nothing", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take();
  host.fault = (kind) => (kind === "copy" ? EIO : 0);
  host.image(1, WRITE, 512, 512, 9);
  host.run();
  assert.is(host.imageResults.get(1), EIO);
  assert.equal(lostRanges(area), []);
  host.fault = () => 0;
  assert.equal(host.readImage(0, 4096).data, before.slice(0, 4096));
});

test("a short run is an I/O error", () => {
  const host = new FakeHost();
  host.take();
  host.image(0, READ, 0, 4096);
  host.fault = () => 512;
  host.run();
  assert.is(host.imageResults.get(0), EIO);
});

test("the last block is copied only up to the end of the device", () => {
  const capacityBytes = 65536 + 4096 + 1024;
  const host = new FakeHost({ geometry: { capacityBytes } });
  const before = host.original.slice();
  host.take();
  host.front(0, WRITE, capacityBytes - 512, 512, 200);
  assert.is(host.engine.copies.lengthBytes[0], 1024);
  host.run();
  assert.equal(host.readImage(65536, 5120).data, before.slice(65536));
  host.image(1, WRITE, capacityBytes - 1024, 1024, 7);
  host.run();
  assert.is(host.imageResults.get(1), 1024);
  assert.equal(host.readImage(capacityBytes - 1024, 1024).data, new Uint8Array(1024).fill(7));
});

test("a released chunk gives its slot back, reads as zero, and can be written in parts", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 4096, 200);
  host.run();
  host.image(1, RequestOp.DISCARD, 0, 65536 + 4096);
  assert.is(host.imageResults.get(1), 0);
  assert.equal(host.freed, [0]);
  assert.equal(host.readImage(0, 65536).data, new Uint8Array(65536));
  host.front(0, WRITE, 8192, 4096, 201);
  assert.equal(host.questions, [{ kind: "original", id: 0 }]);
  host.run();
  host.image(1, WRITE, 8192 + 512, 512, 9);
  assert.is(host.engine.copies.kind[0], CopyKind.ZERO);
  host.run();
  const expected = new Uint8Array(65536).fill(9, 8704, 9216);
  assert.equal(host.readImage(0, 65536).data, expected);
});

test.run();
