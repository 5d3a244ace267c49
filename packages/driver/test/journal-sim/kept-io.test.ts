/** How kept-back discards reach a persistent tracker's journal, and then the original. */
import {
  CbtMap,
  DiffArea,
  DiffAreaMap,
  type EngineIo,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import { readLog } from "@blksnap/journal";
import { Dice } from "@blksnap/testing";
import type { CompletionHandler } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CbtOp } from "../../../data-plane/dist/journal-entries.js";
import { KeptIo } from "../../../data-plane/dist/kept-io.js";
import { WriteGate } from "../../../data-plane/dist/write-gate.js";
import { FakeReactor } from "./medium.js";

const MIB = 2 ** 20;
const CAPACITY = 8 * 1024 * MIB;
const GEOMETRY = {
  capacityBytes: CAPACITY,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
const SQE_WORDS = 32;
const OP_FALLOCATE = 17;
const OP_COMMAND = 46;
const EOPNOTSUPP = 95;
const EINVAL = 22;

/** An engine in a snapshot, whose front takes discards only. */
function tracked(submitKept: () => void) {
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY, 16));
  const cbt = CbtMap.create(buffer, {
    capacityBytes: CAPACITY,
    blockShift: 16,
    generation: new Uint8Array(16),
  });
  const unasked = () => assert.unreachable("only kept discards reach the original");
  const none = () => undefined;
  const io: EngineIo = {
    submitKept,
    submitOriginal: unasked,
    submitCopy: unasked,
    submitRun: unasked,
    completeFront: none,
    completeImage: none,
    requestMapSlice: none,
    requestSlots: none,
    freeSlot: none,
    onWritesBlocked: none,
    onDrained: none,
    onAreaFault: none,
    onCopyLate: unasked,
    onRunLate: unasked,
    onStoreHung: unasked,
    onStoreAnswered: unasked,
    onAreaClosed: none,
  };
  const engine = new TrackerEngine(GEOMETRY, io, {
    frontDepth: 4,
    imageDepth: 4,
    copyWindowBytes: MIB,
    copiesMax: 4,
    runsMax: 4,
    cbt,
  });
  const area = new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY));
  engine.attachArea(new DiffArea(DiffAreaMap.create(area, GEOMETRY)));
  engine.hold();
  engine.switchAndRelease();
  const discard = (offset: number, length: number) => {
    engine.front.op[0] = RequestOp.DISCARD;
    engine.front.offsetBytes[0] = offset;
    engine.front.lengthBytes[0] = length;
    engine.submitFront(0);
  };
  return { engine, cbt, discard };
}

/** A ring whose entries the test checks and answers. */
function world(isBlock: boolean, gate?: { admitKept: () => boolean }) {
  let handler: CompletionHandler | undefined;
  const entries: { opcode: number; offset: number; length: number; data: number }[] = [];
  const files: number[] = [];
  const sqes32 = new Int32Array(SQE_WORDS * 64);
  let used = 0;
  const reactor = {
    ring: {
      sqes32,
      sqeWords: SQE_WORDS,
      nextSqe: () => used++ * SQE_WORDS,
      reserve: () => undefined,
    },
    addHandler: (added: CompletionHandler) => {
      handler = added;
      return 7;
    },
    removeHandler: () => {
      handler = undefined;
    },
    addFile: (fd: number) => files.push(fd) - 1,
    removeFile: (index: number) => files.splice(index, 1),
  };
  let kept: KeptIo | undefined;
  const { engine, cbt, discard } = tracked(() => kept?.submit());
  kept = new KeptIo(reactor as never, engine, gate as never, { originalFd: 5, isBlock });
  function entry() {
    for (; entries.length < used; ) {
      const at = entries.length * SQE_WORDS;
      const number = (word: number) =>
        (sqes32[at + word]! >>> 0) + sqes32[at + word + 1]! * 2 ** 32;
      const opcode = sqes32[at]! & 0xff;
      const isCommand = opcode === OP_COMMAND;
      entries.push({
        opcode,
        offset: number(isCommand ? 4 : 2),
        length: number(isCommand ? 12 : 4),
        data: sqes32[at + 8]!,
      });
    }
    const { data, ...seen } = entries.at(-1)!;
    return { ...seen, count: entries.length, data };
  }
  const answer = (result: number) => handler?.onCompletion(entry().data, result, 0);
  return { engine, cbt, discard, kept, files, entry, answer, count: () => used };
}

test("a slice is a discard command of its range, even beyond 4 GiB", () => {
  const { engine, discard, entry, answer, files, kept } = world(true);
  discard(5 * 1024 * MIB + 4096, 3 * MIB);
  assert.equal(files, [], "no file is registered before it is needed");
  engine.dropArea();
  const { opcode, offset, length } = entry();
  assert.equal([opcode, offset, length], [OP_COMMAND, 5 * 1024 * MIB + 4096, 3 * MIB]);
  answer(0);
  assert.is(engine.keptSlice.inFlight, false);
  kept.close();
  assert.equal(files, []);
});

test("on a kernel without the command, holes are punched, and the command is not tried again", () => {
  const { engine, discard, entry, answer } = world(true);
  discard(0, 100 * MIB);
  engine.dropArea();
  answer(-EOPNOTSUPP);
  const first = entry();
  assert.equal([first.opcode, first.offset, first.length], [OP_FALLOCATE, 0, 64 * MIB]);
  answer(0);
  const second = entry();
  assert.equal([second.opcode, second.count], [OP_FALLOCATE, 3]);
  assert.equal([second.offset, second.length], [64 * MIB, 36 * MIB]);
});

test("an EINVAL concerns one slice, and a slice that fails both ways is dropped", () => {
  const { engine, discard, entry, answer } = world(true);
  discard(0, 100 * MIB);
  engine.dropArea();
  answer(-EINVAL);
  assert.is(entry().opcode, OP_FALLOCATE);
  answer(-EOPNOTSUPP);
  const next = entry();
  assert.equal([next.opcode, next.offset], [OP_COMMAND, 64 * MIB]);
  answer(-5);
  assert.equal([engine.keptDiscardBytes, entry().count], [0, 3]);
});

test("holes are punched in an image file", () => {
  const { engine, discard, entry } = world(false);
  discard(MIB, MIB);
  engine.dropArea();
  assert.is(entry().opcode, OP_FALLOCATE);
});

test("end() forgets kept discards, and waits for the slice in flight", () => {
  const { engine, discard, kept, answer, count } = world(true);
  discard(0, 100 * MIB);
  engine.dropArea();
  let ended = 0;
  kept.end(() => ended++);
  assert.equal([ended, engine.keptDiscardBytes], [0, 0]);
  answer(0);
  assert.equal([ended, count()], [1, 1]);
  kept.close();
});

test("nothing is issued before the journal admits it", () => {
  let asked = 0;
  const gate = {
    admitKept: () => {
      asked++;
      return false;
    },
  };
  const { engine, discard, kept, count, entry } = world(true, gate);
  discard(0, MIB);
  engine.dropArea();
  assert.equal([asked, count()], [1, 0]);
  kept.admitted();
  assert.is(entry().length, MIB);
});

test("the journal admits a slice when its blocks are on the medium", () => {
  const kernel = new FakeReactor(new Dice(3));
  const log = kernel.makeFile(512 * 64);
  const id = Array.from({ length: 16 }, (_, index) => index);
  let admitted = 0;
  let gate: WriteGate | undefined;
  const waits: (boolean | undefined)[] = [];
  const { engine, cbt, discard } = tracked(() => waits.push(gate?.admitKept(engine.keptSlice)));
  gate = new WriteGate({
    reactor: kernel.asReactor(),
    setup: {
      fd: log.fd,
      logOffsetBytes: 0,
      logBytes: 512 * 64,
      usedSectors: 0,
      id,
      nextSequence: 1,
      nextCommit: 1,
    },
    ticker: { start: () => undefined } as never,
    engine,
    cbt,
    tracker: 1,
    notify: (notice) => assert.unreachable(JSON.stringify(notice)),
    onFrontAdmitted: () => assert.unreachable("no write waits"),
    onImageAdmitted: () => assert.unreachable("no write waits"),
    onKeptAdmitted: () => {
      const entries: number[][] = [];
      readLog(log.durable, Uint8Array.from(id), 1, (op, a, b) => void entries.push([op, a, b]));
      assert.equal(entries, [[CbtOp.MARK, 32, 16]]);
      admitted++;
    },
  });
  discard(2 * MIB, MIB);
  engine.dropArea();
  assert.equal([waits, admitted], [[false], 0]);
  while (!kernel.isIdle) kernel.step();
  assert.is(admitted, 1);
});

test.run();
