/** Copies of a diff area on real files, by a kernel that takes chains in part. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { makeSlot } from "@blksnap/diff-storage";
import { BufferOwner, CopyFault, CopyKind, IoState, type TrackerEngine } from "@blksnap/engine";
import { createMemoryFile, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { AreaIo } from "../dist/area-io.js";
import { CopyDurations } from "../dist/durations.js";
import type { IoTicker } from "../dist/io-ticker.js";

const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 4 * BLOCK_BYTES;
const CHUNKS = 4;
const EIO = 5;
const EBADF = 9;
/** Nothing is late here. */
const ticker = { start: () => undefined } as unknown as IoTicker;

interface Done {
  readonly copy: number;
  readonly result: number;
  readonly fault: number;
}

/** Has the kernel take so many entries at a time, as if it had no memory for more. */
function takeAtMost(count: number): () => void {
  const { enter } = native;
  native.enter = (fd, toSubmit, minComplete, flags) =>
    enter(fd, Math.min(toSubmit, count), toSubmit > count ? 0 : minComplete, flags);
  return () => {
    native.enter = enter;
  };
}

/** Copies one block of each chunk; answers how the copies ended, and what the store has. */
function copyAll(
  kind: number,
  storeFlags: string,
  originalChunks: number,
  isOriginalGone = false,
): { done: Done[]; stored: Buffer; original: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-area-"));
  const original = Buffer.alloc(originalChunks * CHUNK_BYTES);
  for (let at = 0; at < original.length; at += 512)
    original.fill(1 + ((at / 512) % 250), at, at + 512);
  writeFileSync(join(folder, "original"), original);
  writeFileSync(join(folder, "store"), Buffer.alloc(CHUNKS * CHUNK_BYTES, 0xdd));
  const originalFd = openSync(join(folder, "original"), "r");
  const storeFd = openSync(join(folder, "store"), storeFlags);
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const done: Done[] = [];
  const errors: unknown[] = [];
  const reactor = new Reactor({
    wakeFd,
    port: port2,
    onMessage: () => undefined,
    onError: (error) => errors.push(error),
  });
  const numbers = (value: (copy: number) => number) =>
    Float64Array.from({ length: CHUNKS }, (_, i) => value(i));
  const engine = {
    geometry: { chunkBytes: CHUNK_BYTES, blockShift: 12 },
    runs: { size: 1 },
    copies: {
      size: CHUNKS,
      chunk: numbers((copy) => copy),
      blockStart: numbers((copy) => copy),
      lengthBytes: numbers(() => BLOCK_BYTES),
      slot: numbers((copy) => makeSlot(0, CHUNKS - 1 - copy)),
      kind: numbers(() => kind),
      bufferOwner: numbers(() => BufferOwner.FRONT),
      bufferTag: numbers((copy) => copy),
      bufferOffsetBytes: numbers(() => 0),
      state: numbers(() => IoState.LIVE),
    },
    onCopyRead: () => undefined,
    onCopyDone(copy: number, result: number, fault: number) {
      done.push({ copy, result, fault });
      if (done.length === CHUNKS) reactor.stop();
    },
  };
  const originalIndex = reactor.addFile(originalFd);
  const io = new AreaIo({
    reactor,
    ticker,
    engine: engine as unknown as TrackerEngine,
    copyDurations: new CopyDurations(reactor, CHUNKS),
    originalIndex,
    storeFds: [storeFd],
    frontDepth: CHUNKS,
    imageDepth: 1,
    frontWindowBytes: BLOCK_BYTES,
    imageWindowBytes: BLOCK_BYTES,
    slotBytes: CHUNK_BYTES,
    journal: undefined,
  });
  if (isOriginalGone) reactor.removeFile(originalIndex);
  for (let copy = 0; copy < CHUNKS; copy++) io.submitCopy(copy);
  reactor.run();
  for (const fd of [originalFd, storeFd, wakeFd]) closeSync(fd);
  port1.close();
  const stored = readFileSync(join(folder, "store"));
  rmSync(folder, { recursive: true });
  assert.equal(errors, []);
  done.sort((a, b) => a.copy - b.copy);
  return { done, stored, original };
}

/** The block that a copy was to write. */
function blockOf(stored: Buffer, copy: number): Buffer {
  const at = (CHUNKS - 1 - copy) * CHUNK_BYTES + copy * BLOCK_BYTES;
  return stored.subarray(at, at + BLOCK_BYTES);
}

function sourceOf(original: Buffer, copy: number): Buffer {
  const at = copy * (CHUNK_BYTES + BLOCK_BYTES);
  return original.subarray(at, at + BLOCK_BYTES);
}

for (const count of [1, 2, 3, 1000]) {
  test(`copies are right where the kernel takes ${count} entries at a time`, () => {
    const restore = takeAtMost(count);
    try {
      const { done, stored, original } = copyAll(CopyKind.OLD, "r+", CHUNKS);
      for (let copy = 0; copy < CHUNKS; copy++) {
        assert.equal(done[copy], { copy, result: 0, fault: CopyFault.NONE });
        assert.is(blockOf(stored, copy).compare(sourceOf(original, copy)), 0);
      }
      const zeroed = copyAll(CopyKind.ZERO, "r+", CHUNKS);
      for (let copy = 0; copy < CHUNKS; copy++) {
        assert.equal(zeroed.done[copy], { copy, result: 0, fault: CopyFault.NONE });
        assert.ok(blockOf(zeroed.stored, copy).every((byte) => byte === 0));
      }
    } finally {
      restore();
    }
  });

  test(`a read that fails writes nothing where it takes ${count} at a time`, () => {
    const restore = takeAtMost(count);
    try {
      // The last chunk is not there.
      const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS - 1);
      assert.equal(done[CHUNKS - 1], { copy: CHUNKS - 1, result: -EIO, fault: CopyFault.READ });
      assert.ok(blockOf(stored, CHUNKS - 1).every((byte) => byte === 0xdd));
      assert.is(done[0]?.result, 0);
      // A store that cannot be written is tried once more at most.
      const refused = copyAll(CopyKind.OLD, "r", CHUNKS);
      for (const end of refused.done) {
        assert.equal([end.result, end.fault], [-EBADF, CopyFault.WRITE]);
      }
    } finally {
      restore();
    }
  });
}

test("a read that fails as a torn chain does is no torn chain: nothing is written", () => {
  const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS, true);
  for (let copy = 0; copy < CHUNKS; copy++) {
    assert.equal(done[copy], { copy, result: -EBADF, fault: CopyFault.READ });
    assert.ok(blockOf(stored, copy).every((byte) => byte === 0xdd));
  }
});

test("an area that cannot be made gives back the stores that it had registered", () => {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const none = () => undefined;
  const reactor = new Reactor({ wakeFd, port: port2, onMessage: none, onError: none });
  const store = createMemoryFile("store");
  const before = reactor.addFile(store);
  reactor.removeFile(before);
  const engine = {
    geometry: { chunkBytes: CHUNK_BYTES, blockShift: 12 },
    copies: { size: 1 },
    runs: { size: 1 },
  };
  const make = () =>
    new AreaIo({
      reactor,
      ticker,
      engine: engine as unknown as TrackerEngine,
      copyDurations: new CopyDurations(reactor, 1),
      originalIndex: 0,
      // The second is no descriptor at all.
      storeFds: [store, 1_000_000],
      frontDepth: 1,
      imageDepth: 1,
      frontWindowBytes: BLOCK_BYTES,
      imageWindowBytes: BLOCK_BYTES,
      slotBytes: CHUNK_BYTES,
      journal: undefined,
    });
  assert.throws(() => reactor.attempt(make), /cannot register/);
  assert.is(reactor.addFile(store), before);
  closeSync(store);
  closeSync(wakeFd);
  port1.close();
});

test.run();
