/** Copies of a diff area on real files, with a kernel that accepts only parts of chains. */
import { closeSync, writeSync } from "node:fs";
import { CopyFault, CopyKind, CopyMode, IoState, RunKind } from "@blksnap/engine";
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
import {
  type Answer,
  answerFor,
  blockOf,
  CHUNKS,
  copyAll,
  sourceOf,
  UNWRITTEN,
} from "./copy-all.js";
import { passTime, takeAtMost } from "./short-ring.js";

const EIO = 5;
const EBADF = 9;
const EAGAIN = 11;
const ENOMEM = 12;
const ECANCELED = 125;

for (const count of [1, 2, 3, 1000]) {
  test(`copies are right if the kernel takes ${count} entries at a time`, () => {
    const restore = takeAtMost(count);
    try {
      const { done, stored, original } = copyAll(CopyKind.OLD, "r+", CHUNKS);
      for (let copy = 0; copy < CHUNKS; copy++) {
        assert.equal(done[copy], { copy, result: 0, fault: CopyFault.NONE });
        assert.is(blockOf(stored, copy).compare(sourceOf(original, copy)), 0);
      }
      const apart = copyAll(CopyKind.OLD, "r+", CHUNKS, { mode: CopyMode.APART });
      for (let copy = 0; copy < CHUNKS; copy++) {
        assert.equal(apart.done[copy], { copy, result: 0, fault: CopyFault.NONE });
        assert.is(blockOf(apart.stored, copy).compare(sourceOf(apart.original, copy)), 0);
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

  test(`a read that fails writes nothing if the kernel takes ${count} entries at a time`, () => {
    const restore = takeAtMost(count);
    try {
      // The last chunk is missing.
      const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS - 1);
      assert.equal(done[CHUNKS - 1], { copy: CHUNKS - 1, result: -EIO, fault: CopyFault.READ });
      assert.ok(blockOf(stored, CHUNKS - 1).every((byte) => byte === UNWRITTEN));
      assert.is(done[0]?.result, 0);
      // A store that cannot be written is retried at most once.
      const refused = copyAll(CopyKind.OLD, "r", CHUNKS);
      for (const end of refused.done) {
        assert.equal([end.result, end.fault], [-EBADF, CopyFault.WRITE]);
      }
    } finally {
      restore();
    }
  });
}

test("a failed read is not mistaken for a torn chain: nothing is written", () => {
  const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS, { isOriginalGone: true });
  for (let copy = 0; copy < CHUNKS; copy++) {
    assert.equal(done[copy], { copy, result: -EBADF, fault: CopyFault.READ });
    assert.ok(blockOf(stored, copy).every((byte) => byte === UNWRITTEN));
  }
});

/** For a copy: the kernel has no memory for its read, or for its write, so many times. */
function shortage(errno: number, isWriteShort: boolean, times: number): Answer {
  const left = new Array<number>(CHUNKS).fill(times);
  const isShort = (copy: number): boolean => left[copy]! > 0;
  return (copy, isWrite, result) => {
    if (!isWrite) return !isWriteShort && isShort(copy) ? -errno : result;
    if (!isShort(copy)) return result;
    left[copy]!--;
    // A failed read cancels the write that is linked to it.
    return isWriteShort ? -errno : -ECANCELED;
  };
}

for (const errno of [ENOMEM, ECANCELED, EAGAIN]) {
  for (const part of ["read", "write"]) {
    test(`a copy is repeated if the kernel could not carry out its ${part} (${errno})`, () => {
      const answer = shortage(errno, part === "write", 3);
      const { done, stored, original, read } = copyAll(CopyKind.OLD, "r+", CHUNKS, { answer });
      for (let copy = 0; copy < CHUNKS; copy++) {
        assert.equal(done[copy], { copy, result: 0, fault: CopyFault.NONE });
        assert.is(blockOf(stored, copy).compare(sourceOf(original, copy)), 0);
      }
      // The store's bound begins only once.
      assert.equal(read, [0, 1, 2, 3]);
    });
  }
}

test("a copy that cannot be made is given up after as many tries as a request of a front", () => {
  for (const isWriteShort of [false, true]) {
    const asked = new Array<number>(CHUNKS).fill(0);
    const isShort = shortage(ENOMEM, isWriteShort, 1000);
    const answer: Answer = (copy, isWrite, result) => {
      if (isWrite) asked[copy]!++;
      return isShort(copy, isWrite, result);
    };
    const { done } = copyAll(CopyKind.OLD, "r+", CHUNKS, { answer });
    const fault = isWriteShort ? CopyFault.WRITE : CopyFault.READ;
    assert.equal(
      done,
      [0, 1, 2, 3].map((copy) => ({ copy, result: -ENOMEM, fault })),
    );
    assert.equal(asked, [101, 101, 101, 101]);
  }
});

test("after a copy was given up, its repetitions do not pause again", () => {
  for (const isWriteShort of [false, true]) {
    const asked = new Array<number>(CHUNKS).fill(0);
    const isShort = shortage(ENOMEM, isWriteShort, 103);
    const answer: Answer = (copy, isWrite, result) => {
      if (isWrite) asked[copy]!++;
      return isShort(copy, isWrite, result);
    };
    let pauses = 0;
    const onPause = () => pauses++;
    const { done } = copyAll(CopyKind.OLD, "r+", CHUNKS, { answer, again: 3, onPause });
    assert.ok(done.every(({ result }) => result === 0));
    assert.equal(asked, [104, 104, 104, 104]);
    assert.is(pauses, 100 * CHUNKS);
  }
});

test("a copy that is late before its retry ends, and writes nothing", () => {
  const answer = shortage(ENOMEM, true, 1);
  const onPause = (state: Float64Array) => state.fill(IoState.LATE);
  const { done, stored } = copyAll(CopyKind.OLD, "r+", CHUNKS, { answer, onPause });
  assert.ok(done.every(({ result, fault }) => result === -ENOMEM && fault === CopyFault.WRITE));
  assert.ok(stored.every((byte) => byte === UNWRITTEN));
});

test("a part of an image request of which only a part was transferred fails", () => {
  const kinds = [RunKind.READ_SLOT, RunKind.READ_ORIGINAL, RunKind.WRITE_SLOT];
  const { reactor, close } = openReactor();
  const file = createMemoryFile("file");
  writeSync(file, Buffer.alloc(512, 7));
  const memory = MappedMemory.anonymous(BLOCK_BYTES);
  const done: number[][] = [];
  const runs = kinds.map((kind) => ({ kind, slot: 0 }));
  const engine = engineOf(runs, (run, result) => {
    if (done.push([run, result]) === kinds.length) reactor.stop();
  });
  const addHandler = reactor.addHandler.bind(reactor);
  const isWrite = (run: number) => kinds[run] === RunKind.WRITE_SLOT;
  reactor.addHandler = (handler) =>
    addHandler({
      onCompletion: (run, result, flags) =>
        handler.onCompletion(run, isWrite(run) && result > 512 ? 512 : result, flags),
    });
  const originalIndex = reactor.addFile(file);
  const io = areaIo({ reactor, engine, originalIndex, storeFds: [createMemoryFile("empty")] });
  io.imageQueue = queueOn(memory);
  for (const run of kinds.keys()) io.submitRun(run);
  reactor.run();
  assert.equal(done.sort(), [
    [0, -EIO],
    [1, -EIO],
    [2, -EIO],
  ]);
  closeSync(file);
  memory.unmap();
  close();
});

test("if the write of a chain is answered before the read that has failed, the read has failed", () => {
  const { reactor, close } = openReactor();
  const store = createMemoryFile("store");
  const ended: number[][] = [];
  const engine = {
    ...engineOf([], () => undefined),
    copies: copyOf({}),
    onCopyDone: (_: number, result: number, fault: number) => {
      ended.push([result, fault]);
      reactor.stop();
    },
  };
  let ofRead: (() => void) | undefined;
  const addHandler = reactor.addHandler.bind(reactor);
  reactor.addHandler = (handler) =>
    addHandler({
      onCompletion: (data, result, flags) => {
        const pass = () => handler.onCompletion(data, result, flags);
        if ((data & 1) === 0) ofRead = pass;
        else {
          pass();
          ofRead?.();
        }
      },
    });
  // It is empty.
  const originalIndex = reactor.addFile(createMemoryFile("original"));
  areaIo({ reactor, engine, originalIndex, storeFds: [store] }).submitCopy(0);
  reactor.run();
  assert.equal(ended, [[-EIO, CopyFault.READ]]);
  closeSync(store);
  close();
});

for (const [isLate, expected] of [
  [false, [0, BLOCK_BYTES]],
  [true, [0, -EIO]],
] as const) {
  const when = isLate ? " ends where it is late by then" : "";
  test(`a part of an image request that the kernel could not carry out is retried${when}`, () => {
    const { reactor, close } = openReactor();
    const store = createMemoryFile("store");
    writeSync(store, Buffer.alloc(2 * CHUNK_BYTES, 7));
    const memory = MappedMemory.anonymous(BLOCK_BYTES);
    const done: number[][] = [];
    const read = { kind: RunKind.READ_SLOT, chunk: 5, slot: 1 };
    const engine = engineOf([read], (run, result) => {
      done.push([run, result]);
      reactor.stop();
    });
    let refusals = 3;
    answerFor(reactor, store, (_copy, _isWrite, result) => (refusals-- > 0 ? -ENOMEM : result));
    passTime(reactor, () => {
      new Uint8Array(memory.buffer).fill(0);
      if (isLate) engine.runs.state[0] = IoState.LATE;
    });
    const io = areaIo({ reactor, engine, storeFds: [store] });
    io.imageQueue = queueOn(memory);
    io.submitRun(0);
    reactor.run();
    assert.equal(done, [expected]);
    assert.is(refusals, isLate ? 2 : -1);
    assert.ok(new Uint8Array(memory.buffer).every((byte) => byte === (isLate ? 0 : 7)));
    closeSync(store);
    memory.unmap();
    close();
  });
}

test.run();
