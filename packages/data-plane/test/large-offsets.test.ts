/** Copies and parts of image requests beyond 4 GiB: in the original, in a store, and with a buffer across such an address. */
import { closeSync, readSync, writeSync } from "node:fs";
import { RunKind } from "@blksnap/engine";
import { createMemoryFile, MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  areaIo,
  BLOCK_BYTES,
  CHUNK_BYTES,
  copyOf,
  engineOf,
  openReactor,
  queueOn,
} from "./area-world.js";

const GIB = 2 ** 30;
/** Both halves of an offset differ. */
const CHUNK = (9 * GIB) / CHUNK_BYTES + 3;
const SLOT = (6 * GIB) / CHUNK_BYTES + 2;
const BLOCK = 1;

function blockAt(fd: number, at: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  readSync(fd, block, 0, BLOCK_BYTES, at);
  return block;
}

test("a copy reads and writes where its chunk and its slot are", () => {
  const { reactor, close } = openReactor();
  const original = createMemoryFile("original");
  const store = createMemoryFile("store");
  const content = Buffer.alloc(BLOCK_BYTES, 7);
  writeSync(original, content, 0, BLOCK_BYTES, CHUNK * CHUNK_BYTES + BLOCK * BLOCK_BYTES);
  const results: number[] = [];
  const engine = {
    ...engineOf([], () => undefined),
    copies: copyOf({ chunk: CHUNK, blockStart: BLOCK, slot: SLOT }),
    onCopyRead: () => undefined,
    onCopyDone: (_: number, result: number) => {
      results.push(result);
      reactor.stop();
    },
  };
  const originalIndex = reactor.addFile(original);
  const io = areaIo({ reactor, engine, originalIndex, storeFds: [store] });
  io.submitCopy(0);
  reactor.run();
  assert.equal(results, [0]);
  assert.equal(blockAt(store, SLOT * CHUNK_BYTES + BLOCK * BLOCK_BYTES), content);
  for (const fd of [original, store]) closeSync(fd);
  close();
});

test("parts of image requests are where their chunk, their slot and their buffer are", () => {
  const { reactor, close } = openReactor();
  const original = createMemoryFile("original");
  const store = createMemoryFile("store");
  writeSync(original, Buffer.alloc(BLOCK_BYTES, 7), 0, BLOCK_BYTES, CHUNK * CHUNK_BYTES);
  writeSync(store, Buffer.alloc(BLOCK_BYTES, 8), 0, BLOCK_BYTES, SLOT * CHUNK_BYTES);
  // Only the pages around the boundary are touched.
  const memory = MappedMemory.anonymous(2 ** 32);
  const boundary = (Math.floor(memory.address / 2 ** 32) + 1) * 2 ** 32;
  const before = 2 * BLOCK_BYTES;
  const bytes = new Uint8Array(memory.buffer, boundary - before - memory.address, 2 * before);
  bytes.subarray(3 * BLOCK_BYTES).fill(9);
  const results: number[][] = [];
  const runs = [
    { kind: RunKind.READ_ORIGINAL, chunk: CHUNK, slot: 0, bufferOffsetBytes: BLOCK_BYTES },
    { kind: RunKind.READ_SLOT, slot: SLOT, bufferOffsetBytes: 2 * BLOCK_BYTES },
    { kind: RunKind.WRITE_SLOT, slot: SLOT + 1, bufferOffsetBytes: 3 * BLOCK_BYTES },
  ];
  const engine = engineOf(runs, (run, result) => {
    if (results.push([run, result]) === runs.length) reactor.stop();
  });
  const originalIndex = reactor.addFile(original);
  const io = areaIo({ reactor, engine, originalIndex, storeFds: [store] });
  const { lengthBytes } = memory;
  io.imageQueue = queueOn({ address: boundary - before, lengthBytes } as MappedMemory);
  for (const run of runs.keys()) io.submitRun(run);
  reactor.run();
  assert.ok(results.every(([, result]) => result === BLOCK_BYTES));
  const blocks = [0, 1, 2, 3].map((block) => bytes[block * BLOCK_BYTES]);
  assert.equal(blocks, [0, 7, 8, 9]);
  assert.equal(blockAt(store, (SLOT + 1) * CHUNK_BYTES), Buffer.alloc(BLOCK_BYTES, 9));
  for (const fd of [original, store]) closeSync(fd);
  memory.unmap();
  close();
});

test.run();
