/** A part of an image request while another part is late. */
import { closeSync, readSync, writeSync } from "node:fs";
import { makeSlot } from "@blksnap/diff-storage";
import { IoState, RunKind } from "@blksnap/engine";
import { createMemoryFile, MappedMemory, type Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { areaIo, BLOCK_BYTES, CHUNK_BYTES, GEOMETRY, openReactor, queueOn } from "./area-world.js";
import { passTime } from "./short-ring.js";

const EIO = 5;
const ENOMEM = 12;
const UNWRITTEN = 0xdd;

/** The kernel has no memory for so many writes, which write nothing. */
function refuse(reactor: Reactor, store: number, count: number): void {
  const addHandler = reactor.addHandler.bind(reactor);
  const unwritten = Buffer.alloc(BLOCK_BYTES, UNWRITTEN);
  let left = count;
  reactor.addHandler = (handler) =>
    addHandler({
      onCompletion: (data, result, flags) => {
        const isRefused = left-- > 0;
        if (isRefused) writeSync(store, unwritten, 0, BLOCK_BYTES, data * CHUNK_BYTES);
        handler.onCompletion(data, isRefused ? -ENOMEM : result, flags);
      },
    });
}

/** An engine with an image's write of a block of each of two chunks. */
function twoWrites(onRunDone: (run: number, result: number) => void) {
  return {
    geometry: GEOMETRY,
    copies: { size: 1 },
    image: { error: [0] },
    runs: {
      size: 2,
      state: [IoState.LIVE, IoState.LIVE] as number[],
      kind: [RunKind.WRITE_SLOT, RunKind.WRITE_SLOT],
      tag: [0, 0],
      chunk: [0, 1],
      slot: [makeSlot(0, 0), makeSlot(0, 1)],
      offsetInChunkBytes: [0, 0],
      lengthBytes: [BLOCK_BYTES, BLOCK_BYTES],
      bufferOffsetBytes: [0, BLOCK_BYTES],
    },
    onRunDone,
  };
}

test("a part of an image's write is not retried if its tag has the buffer of another request", () => {
  const { reactor, close } = openReactor();
  const store = createMemoryFile("store");
  writeSync(store, Buffer.alloc(2 * CHUNK_BYTES, UNWRITTEN));
  const memory = MappedMemory.anonymous(2 * BLOCK_BYTES);
  const done: number[][] = [];
  const engine = twoWrites((run, result) => {
    if (done.push([run, result]) === 2) reactor.stop();
  });
  refuse(reactor, store, 2);
  passTime(reactor, () => {
    engine.runs.state[0] = IoState.LATE;
    engine.image.error[0] = -EIO;
    io.setRunLate(0);
  });
  const io = areaIo({ reactor, engine, storeFds: [store] });
  io.imageQueue = queueOn(memory);
  for (const run of [0, 1]) io.submitRun(run);
  reactor.run();
  assert.equal(done, [
    [0, -EIO],
    [1, -EIO],
  ]);
  const stored = Buffer.alloc(2 * CHUNK_BYTES);
  readSync(store, stored, 0, stored.length, 0);
  assert.ok(stored.every((byte) => byte === UNWRITTEN));
  closeSync(store);
  memory.unmap();
  close();
});

test.run();
