import { CopyFault, OverflowPolicy, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost, type HostOptions } from "./fake-host.js";

const { DISCARD, READ, WRITE } = RequestOp;
const EIO = 5;
const ENOSPC = 28;
const BLOCK_BYTES = 4096;
const CHUNK_BLOCKS = 16;
const BLOCKS = 64;

/** Blocks [from, to) of the front are written in sequence, `depth` at a time. */
function writeAll(host: FakeHost, from: number, to: number, depth: number): void {
  for (let block = from; block < to; block += depth) {
    for (let at = block; at < Math.min(block + depth, to); at++) {
      host.front(at - block, WRITE, at * BLOCK_BYTES, BLOCK_BYTES, 200);
    }
    host.run();
    for (let at = block; at < Math.min(block + depth, to); at++) {
      assert.is(host.frontResults.get(at - block), BLOCK_BYTES);
    }
  }
}

/** A host whose first four writes have formed a sequence: the next one is block 4. */
function inSequence(options: HostOptions = {}, slots = 1000, overflow = 0): FakeHost {
  const host = new FakeHost(options);
  host.take(slots, { overflow });
  writeAll(host, 0, 4, 1);
  return host;
}

/** The range of blocks of the copy in flight. */
function copied(host: FakeHost): [number, number] {
  const [question] = host.questions;
  assert.is(question?.kind, "copy");
  const { blockStart, blockCount } = host.engine.copies;
  const start = blockStart[question!.id]!;
  return [start, start + blockCount[question!.id]!];
}

for (const depth of [1, 8]) {
  test(`a sequence, ${depth} at a time, is copied ahead, and the image shows the old data`, () => {
    const host = new FakeHost();
    const before = host.original.slice();
    host.take();
    writeAll(host, 0, BLOCKS, depth);
    const { copies, copiesAhead, copiedBytes } = host.engine.stats.snapshot();
    // Blocks 0 to 3 each alone, 4 to 8, 9 to 15, and each later chunk as a whole.
    assert.is(copies, 4 + 2 + (BLOCKS / CHUNK_BLOCKS - 1));
    assert.is(copiesAhead, copies - 4);
    assert.is(copiedBytes, BLOCKS * BLOCK_BYTES);
    assert.equal(host.readImage(0, before.length).data, before);
  });
}

test("random writes copy nothing ahead, nor do three in sequence", () => {
  const host = new FakeHost();
  host.take();
  for (let block = 0; block < BLOCKS; block++) {
    writeAll(host, (block * 37) % BLOCKS, ((block * 37) % BLOCKS) + 1, 1);
  }
  assert.is(host.engine.stats.snapshot().copiesAhead, 0);
  const other = new FakeHost();
  other.take();
  for (let block = 0; block < BLOCKS; block += 5) writeAll(other, block, block + 4, 1);
  assert.is(other.engine.stats.snapshot().copiesAhead, 0);
  assert.is(other.engine.stats.snapshot().copies, 52);
});

test("a long sequence continues after some random writes, which copy nothing ahead", () => {
  const host = new FakeHost();
  host.take();
  writeAll(host, 0, 32, 1);
  const before = host.engine.stats.snapshot();
  for (const block of [50, 61, 55, 58, 52, 63]) writeAll(host, block, block + 1, 1);
  const between = host.engine.stats.snapshot();
  assert.is(between.copiesAhead, before.copiesAhead);
  assert.is(between.copiedBytes - before.copiedBytes, 6 * BLOCK_BYTES);
  writeAll(host, 32, 33, 1);
  assert.is(host.engine.stats.snapshot().copiesAhead, before.copiesAhead + 1);
});

test("copying ahead takes no slot that the write does not need", () => {
  const host = inSequence({}, 1, OverflowPolicy.FAIL_WRITES);
  writeAll(host, 4, CHUNK_BLOCKS, 1);
  assert.is(host.engine.stats.snapshot().slotsTaken, 1);
  assert.is(host.engine.area?.slots.deniedErrno, 0);
});

test("in a larger chunk a copy goes ahead to the next multiple of 256 KiB", () => {
  const geometry = { chunkShift: 20, capacityBytes: 2 ** 20 };
  const host = new FakeHost({ geometry, copyWindowBytes: 2 ** 20 });
  host.take();
  for (let block = 0; block < 64; block++) {
    host.front(0, WRITE, block * BLOCK_BYTES, BLOCK_BYTES, 200);
    while (host.questions.length > 0) answerUnseen(host);
  }
  host.front(0, WRITE, 64 * BLOCK_BYTES, BLOCK_BYTES, 200);
  assert.equal(copied(host), [64, 128]);
});

/** Answers all questions without moving data: the host's windows are small. */
function answerUnseen(host: FakeHost): void {
  for (const { kind, id } of host.questions.splice(0)) {
    if (kind === "copy") host.engine.onCopyDone(id, 0, CopyFault.NONE);
    else host.engine.onOriginalDone(id, BLOCK_BYTES);
  }
}

test("a copy ahead stops at saved blocks, at another copy, and at the end of its window", () => {
  const saved = inSequence();
  saved.front(1, WRITE, 6 * BLOCK_BYTES, BLOCK_BYTES, 201);
  saved.run();
  saved.front(0, WRITE, 4 * BLOCK_BYTES, BLOCK_BYTES, 200);
  assert.equal(copied(saved), [4, 6]);

  const busy = inSequence();
  busy.image(1, WRITE, 7 * BLOCK_BYTES, BLOCK_BYTES, 77);
  busy.front(0, WRITE, 4 * BLOCK_BYTES, BLOCK_BYTES, 200);
  assert.is(busy.questions.shift()?.kind, "run");
  assert.equal(copied(busy), [4, 7]);

  const narrow = inSequence({ copyWindowBytes: 2 * BLOCK_BYTES });
  narrow.front(0, WRITE, 4 * BLOCK_BYTES, BLOCK_BYTES, 200);
  assert.equal(copied(narrow), [4, 6]);
});

test("writes to blocks that are being copied ahead wait, and copy nothing", () => {
  const host = inSequence();
  const before = host.original.slice();
  host.front(0, WRITE, 4 * BLOCK_BYTES, BLOCK_BYTES, 200);
  host.front(1, WRITE, 7 * BLOCK_BYTES, BLOCK_BYTES, 201);
  host.image(1, DISCARD, 0, CHUNK_BLOCKS * BLOCK_BYTES);
  assert.equal(host.freed, []);
  assert.is(host.questions.length, 1);
  host.answer("copy");
  assert.equal(
    host.questions.map(({ kind }) => kind),
    ["original", "original"],
  );
  host.run();
  const at = 4 * BLOCK_BYTES;
  const length = 4 * BLOCK_BYTES;
  assert.equal(host.readImage(at, length).data, before.slice(at, at + length));
});

for (const errno of [EIO, ENOSPC]) {
  for (const overflow of [OverflowPolicy.BREAK_SNAPSHOT, OverflowPolicy.FAIL_WRITES]) {
    test(`errno ${errno} ahead costs nothing under policy ${overflow}`, () => {
      const host = inSequence({}, 1000, overflow);
      const before = host.original.slice();
      const { blockCount } = host.engine.copies;
      host.faultSide = CopyFault.WRITE;
      host.fault = (kind, id) => (kind === "copy" && blockCount[id]! > 1 ? -errno : 0);
      writeAll(host, 4, CHUNK_BLOCKS, 1);
      assert.is(host.engine.stats.snapshot().lostBlocks, 0);
      assert.is(host.engine.stats.snapshot().refusedWrites, 0);
      const { result, data } = host.readImage(4 * BLOCK_BYTES, 12 * BLOCK_BYTES);
      assert.is(result, 12 * BLOCK_BYTES);
      assert.equal(data, before.slice(4 * BLOCK_BYTES, 16 * BLOCK_BYTES));
      // After a failure a new sequence has to form.
      assert.ok(host.engine.stats.snapshot().copiesAhead < 4);
    });
  }
}

test("a late copy loses only the blocks that its write needed", () => {
  const host = inSequence();
  host.front(0, WRITE, 4 * BLOCK_BYTES, BLOCK_BYTES, 200);
  assert.equal(copied(host), [4, 9]);
  host.hang(9);
  assert.equal(host.late, [{ kind: "copy", id: 0 }]);
  assert.is(host.engine.stats.snapshot().lostBlocks, 1);
  host.image(2, READ, 5 * BLOCK_BYTES, BLOCK_BYTES);
  host.answer("original");
  host.answer("run");
  assert.is(host.imageResults.get(2), BLOCK_BYTES);
});

test("a snapshot that ends is closed when copies ahead have ended", () => {
  const host = inSequence();
  host.front(0, WRITE, 4 * BLOCK_BYTES, BLOCK_BYTES, 200);
  host.engine.dropArea();
  assert.is(host.closed, 0);
  host.run();
  assert.is(host.closed, 1);
  assert.is(host.frontResults.get(0), BLOCK_BYTES);
});

test.run();
