/** A part of an image request whose other part is late. */
import { closeSync, readSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { makeSlot } from "@blksnap/diff-storage";
import { IoState, RunKind, type TrackerEngine } from "@blksnap/engine";
import { NOT_REGISTERED, type RequestQueue } from "@blksnap/ublk";
import { createMemoryFile, high32, low32, MappedMemory, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { AreaIo } from "../dist/area-io.js";
import { CopyDurations } from "../dist/durations.js";
import type { IoTicker } from "../dist/io-ticker.js";
import { passTime } from "./short-ring.js";

const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 4 * BLOCK_BYTES;
const EIO = 5;
const ENOMEM = 12;
const UNWRITTEN = 0xdd;

/** The kernel has no memory for these many writes, which write nothing. */
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

/** Of one tag. */
function queueOn(memory: MappedMemory): RequestQueue {
  const queue = {
    depth: 1,
    maxIoBytes: memory.lengthBytes,
    bufferLow: [low32(memory.address)],
    bufferHigh: [high32(memory.address)],
    bufferIndex: [NOT_REGISTERED],
    keepBuffers: () => undefined,
    releaseBuffers: () => undefined,
    replaceBuffer(tag: number, { address }: MappedMemory) {
      queue.bufferLow[tag] = low32(address);
      queue.bufferHigh[tag] = high32(address);
    },
  };
  return queue as unknown as RequestQueue;
}

/** An engine with an image's write of a block of each of two chunks. */
function twoWrites(onRunDone: (run: number, result: number) => void) {
  return {
    geometry: { chunkBytes: CHUNK_BYTES, blockShift: 12 },
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

test("a part of an image's write is not tried again when the tag has the buffer of another request", () => {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const none = () => undefined;
  const reactor = new Reactor({ wakeFd, port: port2, onMessage: none, onError: none });
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
  const io = new AreaIo({
    reactor,
    ticker: { start: none } as unknown as IoTicker,
    engine: engine as unknown as TrackerEngine,
    copyDurations: new CopyDurations(reactor, 1),
    originalIndex: 0,
    storeFds: [store],
    frontDepth: 1,
    imageDepth: 1,
    frontWindowBytes: BLOCK_BYTES,
    imageWindowBytes: BLOCK_BYTES,
    slotBytes: CHUNK_BYTES,
    journal: undefined,
  });
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
  for (const fd of [store, wakeFd]) closeSync(fd);
  memory.unmap();
  port1.close();
});

test.run();
