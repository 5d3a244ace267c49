/** A part of an image request while another part is late. */
import { closeSync, readSync, writeSync } from "node:fs";
import { IoState, RunKind } from "@blksnap/engine";
import { createMemoryFile, MappedMemory, type Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { areaIo, BLOCK_BYTES, CHUNK_BYTES, engineOf, openReactor, queueOn } from "./area-world.js";
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

/** An image's write of a block of each of two chunks. */
const TWO_WRITES = [
  { kind: RunKind.WRITE_SLOT, chunk: 0, slot: 0 },
  { kind: RunKind.WRITE_SLOT, chunk: 1, slot: 1, bufferOffsetBytes: BLOCK_BYTES },
];

test("a part of an image's write is not retried if its tag has the buffer of another request", () => {
  const { reactor, close } = openReactor();
  const store = createMemoryFile("store");
  writeSync(store, Buffer.alloc(2 * CHUNK_BYTES, UNWRITTEN));
  const memory = MappedMemory.anonymous(2 * BLOCK_BYTES);
  const done: number[][] = [];
  const engine = engineOf(TWO_WRITES, (run, result) => {
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
