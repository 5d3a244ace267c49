import { RequestOp, RunKind } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";

const { DISCARD, READ, WRITE, WRITE_ZEROES } = RequestOp;
const CHUNK_BYTES = 65536;

test("without an area a write goes straight to the original", () => {
  const host = new FakeHost();
  host.front(0, WRITE, 0, 4096, 200);
  assert.equal(host.questions, [{ kind: "original", id: 0 }]);
  host.run();
  assert.is(host.frontResults.get(0), 4096);
  assert.is(host.original[0], 200);
});

test("old data is copied before the write is issued, and the image shows it", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.front(0, WRITE, 4096, 8192, 200);
  assert.equal(host.questions, [{ kind: "copy", id: 0 }]);
  host.answer("copy");
  assert.equal(host.questions, [{ kind: "original", id: 0 }]);
  host.run();
  assert.is(host.original[4096], 200);
  const { result, data } = host.readImage(0, host.original.length);
  assert.is(result, before.length);
  assert.equal(data, before);
});

test("a second write to saved blocks copies nothing", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 8192, 200);
  host.run();
  host.front(1, WRITE, 0, 8192, 201);
  assert.equal(host.questions, [{ kind: "original", id: 1 }]);
});

test("a write parks on the copy of another and continues after it", () => {
  const host = new FakeHost();
  host.take();
  host.front(0, WRITE, 0, 8192, 200);
  host.front(1, WRITE, 4096, 4096, 201);
  assert.equal(host.questions.length, 1);
  host.answer("copy");
  assert.equal(
    host.questions.map((question) => question.kind),
    ["original", "original"],
  );
});

test("write-zeroes longer than the copy window proceeds window by window", () => {
  const host = new FakeHost({ copyWindowBytes: 8192 });
  const before = host.original.slice();
  host.take();
  host.front(0, WRITE_ZEROES, 0, host.original.length);
  host.run();
  assert.is(host.frontResults.get(0), 0);
  assert.is(host.original[0], 0);
  assert.equal(host.readImage(0, before.length).data, before);
});

test("a read of the original that a write overtook is read again from the slot", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.image(0, READ, 0, 8192);
  host.front(1, WRITE, 4096, 4096, 200);
  host.answer("copy");
  host.answer("original");
  assert.is(host.original[4096], 200);
  host.run();
  assert.is(host.imageResults.get(0), 8192);
  assert.equal(host.imageData[0], before.slice(0, 8192));
  assert.is(host.engine.stats.snapshot().rereadRuns, 1);
});

test("unsaved blocks are read across chunks at once, saved ones chunk by chunk", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.image(0, READ, 512, host.original.length - 1024);
  assert.equal(host.questions, [{ kind: "run", id: 0 }]);
  host.run();
  assert.equal(host.imageData[0], before.slice(512, -512));
  host.front(1, WRITE, CHUNK_BYTES - 4096, 8192, 200);
  host.run();
  host.image(0, READ, 512, host.original.length - 1024);
  // The original, the end of the first slot, the start of the second one, the original.
  assert.is(host.questions.length, 4);
  host.run();
  assert.equal(host.imageData[0], before.slice(512, -512));
});

test("a read over several chunks that writes overtook is repeated where they were", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.image(0, READ, 512, host.original.length - 512);
  host.front(1, WRITE, 4096, 4096, 200);
  host.front(2, WRITE, CHUNK_BYTES + 8192, 4096, 201);
  host.front(3, WRITE, 3 * CHUNK_BYTES - 4096, 8192, 202);
  host.answer("copy");
  host.answer("original");
  host.run();
  assert.is(host.imageResults.get(0), before.length - 512);
  assert.equal(host.imageData[0], before.slice(512));
  assert.is(host.engine.stats.snapshot().rereadRuns, 4);
});

test("a discard releases no chunk that a read in flight covers", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.image(0, READ, 0, 3 * CHUNK_BYTES);
  host.front(1, WRITE, CHUNK_BYTES, 4096, 200);
  host.answer("copy");
  host.answer("run");
  assert.is(host.engine.runs.kind[0], RunKind.READ_SLOT);
  host.image(1, DISCARD, 0, 3 * CHUNK_BYTES);
  assert.equal(host.freed, []);
  host.run();
  assert.equal(host.imageData[0], before.slice(0, 3 * CHUNK_BYTES));
  host.image(1, DISCARD, 0, 3 * CHUNK_BYTES);
  assert.is(host.freed.length, 1);
});

test("an image write of partial blocks keeps the rest, and never reaches the original", () => {
  const host = new FakeHost();
  const before = host.original.slice();
  host.take();
  host.image(1, WRITE, 512, 4096 * 3, 77);
  host.run();
  assert.is(host.imageResults.get(1), 4096 * 3);
  assert.equal(host.original, before);
  const expected = before.slice(0, 16384).fill(77, 512, 512 + 4096 * 3);
  assert.equal(host.readImage(0, 16384).data, expected);
});

test.run();
