/** Image requests whose tag's buffer is still used by late I/O. */
import { closeSync, writeSync } from "node:fs";
import { IoState, RunKind } from "@blksnap/engine";
import { createMemoryFile, MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ImageBuffers } from "../dist/image-buffers.js";
import { areaIo, BLOCK_BYTES, CHUNK_BYTES, engineOf, openReactor, queueOn } from "./area-world.js";

const EIO = 5;
/** No process has this much. */
const WITHOUT_MEMORY_BYTES = 2 ** 52;

function queueWithoutSpares(memory: MappedMemory): ReturnType<typeof queueOn> {
  return Object.assign(queueOn(memory), { maxIoBytes: WITHOUT_MEMORY_BYTES });
}

test("without memory for another buffer, a tag has none until the late I/O has been answered", () => {
  const memory = MappedMemory.anonymous(BLOCK_BYTES);
  const buffers = new ImageBuffers(queueWithoutSpares(memory), 4, () => undefined);
  for (const run of [0, 1]) buffers.begin(run, 0);
  buffers.setLate(0);
  buffers.setLate(1);
  assert.not.ok(buffers.begin(2, 0));
  buffers.end(0);
  assert.not.ok(buffers.begin(2, 0));
  buffers.end(1);
  assert.ok(buffers.begin(2, 0));
  buffers.end(2);
  buffers.close();
  memory.unmap();
});

test("with memory, the tag continues with another buffer, however many parts of its request are late", () => {
  const memory = MappedMemory.anonymous(BLOCK_BYTES);
  const buffers = new ImageBuffers(queueOn(memory), 4, () => undefined);
  for (const run of [0, 1]) buffers.begin(run, 0);
  buffers.setLate(0);
  buffers.setLate(1);
  assert.ok(buffers.begin(2, 0));
  for (const run of [0, 1, 2]) buffers.end(run);
  buffers.close();
  memory.unmap();
});

test("a request fails if an answer to an earlier one could still overwrite its buffer", () => {
  const { reactor, close } = openReactor();
  const store = createMemoryFile("store");
  writeSync(store, Buffer.alloc(CHUNK_BYTES, 7));
  const memory = MappedMemory.anonymous(BLOCK_BYTES);
  const done: number[][] = [];
  const read = { kind: RunKind.READ_SLOT, slot: 0 };
  const engine = engineOf([read, read], (run, result) => {
    done.push([run, result]);
    if (run === 0) reactor.stop();
  });
  const io = areaIo({ reactor, engine, storeFds: [store] });
  io.imageQueue = queueWithoutSpares(memory);
  io.submitRun(0);
  engine.runs.state[0] = IoState.LATE;
  io.setRunLate(0);
  io.submitRun(1);
  assert.equal(done, [[1, -EIO]]);
  reactor.run();
  assert.equal(done, [
    [1, -EIO],
    [0, BLOCK_BYTES],
  ]);
  closeSync(store);
  memory.unmap();
  close();
});

test.run();
