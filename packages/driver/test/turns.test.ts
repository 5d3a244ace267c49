/** The longest turn of a thread with a device of 64 TiB, in units of work: blocks, chunks, words of a map. */
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TURN_UNITS } from "@blksnap/data-plane";
import {
  AreaState,
  BlockState,
  CbtMap,
  DiffArea,
  DiffAreaMap,
  type EngineIo,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import { JournalDraft, openJournal } from "@blksnap/journal";
import { MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AreaJournal } from "../../data-plane/dist/area-journal.js";
import { CbtJournal } from "../../data-plane/dist/cbt-journal.js";
import { LostRanges } from "../../data-plane/dist/lost-ranges.js";
import { loseSlots } from "../../data-plane/dist/lost-slots.js";
import { Slices } from "../../data-plane/dist/slices.js";
import { REACTOR_TURN_UNITS } from "../../data-plane/dist/turns.js";
import { changesSince } from "../dist/operations/diff.js";
import { lookThrough } from "../dist/snapshot/look-through.js";
import { PackedKernel } from "./journal-sim/packed-kernel.js";

const CAPACITY_BYTES = 64 * 2 ** 40;
const ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);

/** As many blocks as the default parameters allow. */
function scatteredCbt(): CbtMap {
  const options = { capacityBytes: CAPACITY_BYTES, blockShift: 25, generation: ID };
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY_BYTES, options.blockShift));
  const cbt = CbtMap.create(buffer, options);
  assert.is(cbt.blockCount, 2 ** 21);
  for (let block = 0; block < cbt.blockCount; block += 2) cbt.markBlocks(block, 1);
  return cbt;
}

/** Chunks of 4 MiB: sixteen million of them. */
const GEOMETRY = {
  capacityBytes: CAPACITY_BYTES,
  logicalBlockBytes: 512,
  chunkShift: 22,
  blockShift: 16,
};
const DENSE_CHUNKS = 2 ** 20;

/** Records many chunks in the first 4 TiB, few after them. Returns how many. */
function fillArea(map: DiffAreaMap): number {
  let number = 0;
  for (let chunk = 0; chunk < map.geometry.chunkCount; chunk += chunk < DENSE_CHUNKS ? 16 : 4096) {
    map.setSlot(chunk, number++);
    map.setSaved(chunk, 3, 9);
  }
  return number;
}

/** Counts units until the thread does something else. */
class Meter {
  units = 0;
  longest = 0;
  total = 0;
  turns = 0;
  #ticking = true;

  add(units: number): void {
    this.units += units;
    this.total += units;
    this.longest = Math.max(this.longest, this.units);
  }

  turn(): void {
    this.units = 0;
    this.turns++;
  }

  /** On the main thread: other work runs between two calls of this. */
  tick(): this {
    const next = (): void => {
      this.turn();
      if (this.#ticking) setImmediate(next);
    };
    setImmediate(next);
    return this;
  }

  stop(): void {
    this.#ticking = false;
  }

  /** Counts calls of a method, each as so many units. */
  count<Of extends object>(of: Of, method: keyof Of, units: (...args: never[]) => number): void {
    const call = of[method] as (...args: never[]) => unknown;
    const add = (count: number): void => this.add(count);
    of[method] = function (this: Of, ...args: never[]) {
      add(units(...args));
      return call.apply(this, args);
    } as never;
  }
}

test("main thread: a diff of a million ranges", async () => {
  const cbt = scatteredCbt();
  cbt.switch();
  const meter = new Meter().tick();
  meter.count(cbt, "readFrozen", (_into, _offset: number, length: number) => length);
  const { ranges, changed_blocks } = await changesSince(cbt, 0, "/dev/x");
  let told = 0;
  for await (const batch of ranges) {
    // From one turn to the next the blocks that the ranges lie in were looked at.
    meter.add(2 * batch.length);
    told += batch.length;
  }
  meter.stop();
  assert.is(told, 2 ** 20);
  assert.is(changed_blocks, 2 ** 20);
  assert.ok(meter.total > 2 * cbt.blockCount - 10, `${meter.total} units in all`);
  assert.ok(meter.longest <= 2 * TURN_UNITS, `${meter.longest} units in one turn`);
});

test("main thread: the map of an area to be resumed is checked", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-turns-"));
  const fd = openSync(join(folder, "map"), "w+");
  const lengthBytes = DiffAreaMap.byteLength(GEOMETRY);
  ftruncateSync(fd, lengthBytes);
  const memory = MappedMemory.file(fd, 0, lengthBytes);
  const area = { id: Buffer.from(ID).toString("hex"), map: { name: "area", fd, lengthBytes } };
  const map = DiffAreaMap.create(memory.buffer, GEOMETRY, ID);
  map.setState(2);
  const used = fillArea(map);
  for (let chunk = 0; chunk < DENSE_CHUNKS; chunk += 160) map.setLost(chunk, 20, 21);
  const meter = new Meter().tick();
  const { damageOf } = DiffAreaMap.prototype;
  meter.count(DiffAreaMap.prototype, "damageOf", () => 1);
  try {
    const found = await lookThrough(area, GEOMETRY);
    assert.ok(found !== undefined);
    assert.is(found.used.length, used);
    assert.equal(found.figures, {
      slotsUsed: used,
      lostBlocks: map.losses.blocks,
      lostRanges: map.losses.ranges,
    });
  } finally {
    DiffAreaMap.prototype.damageOf = damageOf;
    meter.stop();
    memory.unmap();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
  assert.ok(meter.total > DENSE_CHUNKS, `${meter.total} units in all`);
  assert.ok(meter.longest <= 2 * TURN_UNITS, `${meter.longest} units in one turn`);
});

test("main thread: the checkpoint of a map is written, and read back", async () => {
  const cbt = scatteredCbt();
  const folder = mkdtempSync(join(tmpdir(), "blksnap-turns-"));
  const path = join(folder, "journal");
  const meter = new Meter().tick();
  const source = cbt.checkpoint();
  meter.count(source, "read", (into: Uint8Array) => into.length);
  // When it is read, the checksum of each page is checked.
  const { getUint32 } = DataView.prototype;
  DataView.prototype.getUint32 = function (...args) {
    if (args[0] % 4096 === 4080) meter.add(4096);
    return getUint32.apply(this, args);
  };
  try {
    const draft = await JournalDraft.create(
      path,
      { kind: 1, id: ID, logBytes: 512 },
      source.length,
    );
    await (await draft.publish(source, 1)).close();
    assert.is(meter.total, source.length);
    const { checkpoint, handle } = await openJournal(path, { kind: 1, id: ID }, () => undefined);
    await handle.close();
    assert.ok(meter.total > 2 * source.length, `${meter.total} units in all`);
    assert.is(CbtMap.restoredBytes(checkpoint), CbtMap.byteLength(CAPACITY_BYTES, cbt.blockShift));
    assert.ok(Buffer.from(checkpoint).equals(allOf(cbt)));
  } finally {
    DataView.prototype.getUint32 = getUint32;
    meter.stop();
    rmSync(folder, { recursive: true });
  }
  assert.ok(meter.longest <= 2 * TURN_UNITS, `${meter.longest} units in one turn`);
});

function allOf(cbt: CbtMap): Uint8Array {
  const source = cbt.checkpoint();
  const bytes = new Uint8Array(source.length);
  source.read(bytes, 0);
  return bytes;
}

/** Runs the kernel, with one turn of the reactor per operation. */
function runTurns(kernel: PackedKernel, meter: Meter): void {
  do meter.turn();
  while (kernel.step());
}

test("reactor: a tracker's journal gets a successor", () => {
  const cbt = scatteredCbt();
  const kernel = new PackedKernel();
  const logBytes = 2 ** 21;
  const log = kernel.makeFile(logBytes);
  const successor = kernel.makeFile(logBytes);
  const meter = new Meter();
  const journal = new CbtJournal({
    reactor: kernel.asReactor(),
    setup: {
      fd: log.fd,
      logOffsetBytes: 0,
      logBytes,
      usedSectors: 0,
      id: [...ID],
      nextSequence: 1,
      nextCommit: 1,
    },
    blockShift: cbt.blockShift,
    blockCount: cbt.blockCount,
    requestsMax: 4,
    isMarked: (block) => {
      meter.add(1);
      return cbt.isMarked(block);
    },
    onAdmitted: () => undefined,
    onFault: (errno) => assert.unreachable(`errno ${errno}`),
    onLow: () => undefined,
  });
  // One write over half of the device: all its blocks are recorded.
  const offsetBytes = Float64Array.of(0);
  const lengthBytes = Float64Array.of(CAPACITY_BYTES / 2);
  assert.not.ok(journal.admit(offsetBytes, lengthBytes, 0));
  runTurns(kernel, meter);
  const before = meter.total;
  meter.longest = 0;
  let firstSequence: number | null = null;
  const place = { fd: successor.fd, logOffsetBytes: 0, logBytes, usedSectors: 0 };
  journal.mirror(place, (first) => {
    firstSequence = first;
  });
  assert.is(firstSequence, null);
  runTurns(kernel, meter);
  assert.ok(firstSequence !== null, "it is there in the end");
  assert.is(meter.total - before, cbt.blockCount / 2);
  assert.ok(meter.longest <= REACTOR_TURN_UNITS, `${meter.longest} units in one turn`);
  journal.drop();
});

/** Counts chunks and words that are scanned. */
function meterMap(map: DiffAreaMap, meter: Meter): void {
  const { visitPages } = map;
  map.visitPages = (from, unitsMax, visit) => {
    let chunks = 0;
    const next = visitPages.call(map, from, unitsMax, (chunk) => {
      chunks++;
      return visit(chunk);
    });
    const { chunkCount, wordsPerChunk } = map.geometry;
    assert.ok(next > from || from === chunkCount, "a step that does not continue");
    // A word of the index stands for 32 pages of entries.
    const words = Math.floor(((next - from - chunks) * 4 * (2 + wordsPerChunk)) / 4096 / 32);
    meter.add(chunks + words);
    return next;
  };
}

test("reactor: an area's journal is compacted", () => {
  const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
  const used = fillArea(map);
  const kernel = new PackedKernel();
  const meter = new Meter();
  const logBytes = 2 ** 24;
  const file = kernel.makeFile(logBytes);
  const successor = kernel.makeFile(logBytes);
  const place = { fd: file.fd, logOffsetBytes: 0, logBytes, usedSectors: 0 };
  const journal = new AreaJournal({
    reactor: kernel.asReactor(),
    setup: { ...place, id: [...ID], nextSequence: 1, nextCommit: 1 },
    ticker: { start: () => undefined } as never,
    syncFds: [],
    copiesMax: 8,
    runsMax: 8,
    onCopied: () => undefined,
    onWritten: () => undefined,
    onFault: (errno) => assert.unreachable(`errno ${errno}`),
    onLow: () => undefined,
  });
  meterMap(map, meter);
  let entries = 0;
  const { writer } = journal.io;
  const prepend = writer.prepend.bind(writer);
  writer.prepend = (...entry) => {
    entries++;
    meter.add(1);
    prepend(...entry);
  };
  let ends = 0;
  journal.compact({ ...place, fd: successor.fd }, map, (firstSequence) => {
    assert.is(firstSequence, 1);
    ends++;
  });
  assert.is(meter.total, 0);
  runTurns(kernel, meter);
  assert.is(ends, 1);
  assert.is(entries, used);
  assert.ok(meter.total > DENSE_CHUNKS, `${meter.total} units in all`);
  assert.ok(meter.longest <= 2 * REACTOR_TURN_UNITS, `${meter.longest} units in one turn`);
  journal.drop();
});

test("reactor: slots of a truncated store are lost at once, and found in slices", () => {
  const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
  fillArea(map);
  map.setState(AreaState.ACTIVE);
  const cbtOptions = { capacityBytes: CAPACITY_BYTES, blockShift: 25, generation: ID };
  const cbtBuffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY_BYTES, 25));
  const answers: number[] = [];
  const io = {
    completeImage: (_tag: number, result: number) => answers.push(result),
    onAreaFault: () => undefined,
    requestMapSlice: () => undefined,
    requestSlots: () => undefined,
  } as unknown as EngineIo;
  const engine = new TrackerEngine(GEOMETRY, io, {
    frontDepth: 1,
    imageDepth: 1,
    copyWindowBytes: 2 ** 20,
    copiesMax: 4,
    runsMax: 4,
    cbt: CbtMap.create(cbtBuffer, cbtOptions),
  });
  engine.resumeArea(new DiffArea(map, { storeShift: 28, storeCount: 8 }));
  const kernel = new PackedKernel();
  const meter = new Meter();
  meterMap(map, meter);
  meter.count(map, "setLost", (_chunk: number, from: number, to: number) => to - from);
  let ends = 0;
  loseSlots(engine, new Slices(kernel.asReactor()), { store: 0, firstSlotIndex: 0 }, () => ends++);
  assert.is(ends, 0);
  // The last recorded chunk is far from being found.
  const last = map.geometry.chunkCount - 4096;
  assert.is(map.stateAt(last, 3), BlockState.DATA);
  engine.image.op[0] = RequestOp.READ;
  engine.image.offsetBytes[0] = last * map.geometry.chunkBytes + 3 * map.geometry.blockBytes;
  engine.image.lengthBytes[0] = map.geometry.blockBytes;
  engine.submitImage(0);
  assert.equal(answers, [-5]);
  runTurns(kernel, meter);
  assert.is(ends, 1);
  assert.is(map.losses.blocks, 6 * (DENSE_CHUNKS / 16 + 15 * (DENSE_CHUNKS / 4096)));
  assert.ok(meter.total > DENSE_CHUNKS, `${meter.total} units in all`);
  assert.ok(meter.longest <= 2 * REACTOR_TURN_UNITS, `${meter.longest} units in one turn`);
});

test("reactor: lost ranges are found, and reported again at no cost", () => {
  const map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
  fillArea(map);
  // The whole map is scanned before this one is found.
  map.setLost(map.geometry.chunkCount - 1, 5, 7);
  const kernel = new PackedKernel();
  const meter = new Meter();
  meterMap(map, meter);
  const slices = new Slices(kernel.asReactor());
  const lost = new LostRanges(slices);
  lost.use(map);
  const answers: unknown[] = [];
  for (let asked = 0; asked < 3; asked++) lost.read((ranges) => answers.push(ranges));
  runTurns(kernel, meter);
  const { chunkBytes, blockBytes } = map.geometry;
  const offsetBytes = CAPACITY_BYTES - chunkBytes + 5 * blockBytes;
  const found = [{ offsetBytes, lengthBytes: 2 * blockBytes }];
  assert.equal(answers, [found, found, found]);
  assert.ok(meter.total > DENSE_CHUNKS, `${meter.total} units in all`);
  assert.ok(meter.longest <= 2 * REACTOR_TURN_UNITS, `${meter.longest} units in one turn`);
  const before = meter.total;
  lost.read((ranges) => assert.equal(ranges, found));
  assert.is(meter.total, before, "nothing was lost meanwhile");
  // A million more of them: the first hundred are reported.
  for (let chunk = 7; chunk < DENSE_CHUNKS; chunk += 16) {
    for (let block = 0; block < 32; block += 2) map.setLost(chunk, block, block + 1);
  }
  meter.longest = 0;
  let told = 0;
  lost.read((ranges) => {
    told = ranges.length;
  });
  runTurns(kernel, meter);
  assert.is(told, 100);
  assert.is(map.losses.ranges, DENSE_CHUNKS + 1);
  assert.ok(meter.longest <= 2 * REACTOR_TURN_UNITS, `${meter.longest} units in one turn`);
});

test.run();
