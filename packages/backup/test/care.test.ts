import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import * as zlib from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage, keptPoints, prune, verify } from "../dist/care.js";
import { bytesToRead, CHUNK_BYTES, piecesByChunk } from "../dist/chunks.js";
import { targetError } from "../dist/errors.js";
import { exportToStore } from "../dist/export-store.js";
import { type Files, realFiles, wholeOf } from "../dist/files.js";
import { inFlight } from "../dist/in-flight.js";
import { findPoint } from "../dist/points.js";
import { Meter, type Progress } from "../dist/progress.js";
import { restore } from "../dist/restore.js";
import { BackupStore } from "../dist/store.js";
import { nativeZstd, wasmZstd, type Zstd } from "../dist/zstd.js";
import { frameContentBytes, storedPieces } from "../dist/zstd-frame.js";
import { optionsOf, pointAt } from "./care-points.js";
import { assertSame, FakeMachine, failureOf, MIB, NOW_MS } from "./fake-machine.js";

test("prune and gc: any point can be removed, and data that others need stays", async () => {
  const machine = new FakeMachine(8 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  for (let round = 0; round < 3; round++) {
    machine.write(round === 1 ? 4 * MIB : 0, randomBytes(MIB));
    await exportToStore(store, optionsOf(machine));
  }
  const [first] = await store.points();
  assert.is((await prune(store, { last: 1 }, true, { nowMs: NOW_MS })).length, 2);
  assert.is((await store.points()).length, 3);
  assert.is((await failureOf(prune(store, {}))).code, "USAGE");
  assert.is((await prune(store, { last: 1 }, false, { nowMs: NOW_MS })).length, 2);
  const [last] = await store.points();
  assert.is.not(last?.id, first?.id);
  const { removed_chunks, freed_bytes, kept_chunks } = await collectGarbage(store);
  assert.is(removed_chunks, 1);
  assert.ok(freed_bytes >= MIB);
  assert.is(kept_chunks, 2);
  const target = machine.path("restored");
  await restore({ store, point: last!, target });
  await assertSame(target, machine.content);
  // The chain continues from the point whose parent was removed.
  machine.write(0, randomBytes(65_536));
  assert.is((await exportToStore(store, optionsOf(machine))).parent, last?.id);
  assert.is((await verify(store, await store.points())).damaged.length, 0);
  machine.remove();
});

test("verify and restore distinguish a removed point from a damaged one", async () => {
  const machine = new FakeMachine(8 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  for (const at of [0, 4 * MIB]) {
    machine.write(at, randomBytes(MIB));
    await exportToStore(store, optionsOf(machine));
  }
  machine.write(0, randomBytes(MIB));
  await exportToStore(store, optionsOf(machine));
  const points = await store.points();
  await prune(store, { last: 1 }, false, { nowMs: NOW_MS });
  await collectGarbage(store);
  const found = await verify(store, points);
  assert.equal([found.points, found.damaged], [1, []]);
  const target = machine.path("restored");
  const gone = await failureOf(restore({ store, point: points[0]!, target }));
  assert.is(gone.code, "BACKUP_NOT_FOUND");
  assert.match(gone.message, `point ${points[0]!.id} of /dev/vg/data was removed in the meantime`);
  // Missing chunks of an existing point are damage, even if other points that needed them are gone.
  const last = points[2]!;
  for (const hash of last.chunks) {
    rmSync(join(store.path, "chunks", hash!.slice(0, 2), `${hash}.zst`));
  }
  const { damaged } = await verify(store, points);
  assert.is(damaged.length, 2);
  assert.ok(damaged.every((one) => one.points.join() === last.id));
  assert.is((await failureOf(restore({ store, point: last, target }))).code, "BACKUP_DAMAGED");
  machine.remove();
});

test("an unreadable chunk is damage, and the others are still checked", async () => {
  const machine = new FakeMachine(8 * MIB);
  for (const at of [0, 4 * MIB]) machine.write(at, randomBytes(MIB));
  let sick: string | undefined;
  const files: Files = {
    ...realFiles,
    read: async (path) => {
      if (sick !== undefined && path.includes(sick))
        throw targetError("read", path, Object.assign(new Error("EIO"), { code: "EIO" }));
      return await realFiles.read(path);
    },
  };
  const store = await BackupStore.openOrCreate(machine.path("store"), files);
  const point = await exportToStore(store, optionsOf(machine));
  sick = point.chunks[0]!;
  const { damaged } = await verify(store, [point]);
  assert.equal(
    damaged.map(({ hash }) => hash),
    [sick],
  );
  assert.match(damaged[0]!.why, `${sick}.zst`);
  const restored = restore({ store, point, target: machine.path("restored") });
  assert.is((await failureOf(restored)).code, "BACKUP_DAMAGED");
  // The next export reads the image instead.
  machine.write(0, randomBytes(512));
  const next = await exportToStore(store, optionsOf(machine));
  assert.is((await verify(store, [next])).damaged.length, 0);
  machine.remove();
});

test("gc removes leftovers of uploads, and nothing else, whatever their folder links to", async () => {
  const machine = new FakeMachine(4 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const [tmp, other] = [join(store.path, "tmp"), machine.path("other")];
  rmSync(tmp, { recursive: true });
  mkdirSync(join(other, "folder"), { recursive: true });
  const left = `0123.zst-${randomUUID()}`;
  for (const name of ["passwd", left]) writeFileSync(join(other, name), "x");
  symlinkSync(other, tmp);
  await collectGarbage(store);
  assert.equal((await readdir(other)).sort(), ["folder", "passwd"]);
  machine.remove();
});

test("the newest point of each hour, day and week is kept, separately for each device", () => {
  const times = [
    ...["2026-01-04T23:00:00Z", "2026-01-05T01:00:00Z", "2026-01-05T01:30:00Z"],
    ...["2026-01-06T10:00:00Z", "2026-01-06T11:00:00Z"],
  ];
  const points = times.map((time) => pointAt(time));
  const kept = (keep: Parameters<typeof keptPoints>[1]): string =>
    keptPoints(points, keep, NOW_MS)
      .map((point) => points.indexOf(point))
      .join("");
  assert.is(kept({ last: 2 }), "34");
  assert.is(kept({ hourly: 3 }), "234");
  assert.is(kept({ daily: 2 }), "24");
  assert.is(kept({ daily: 9 }), "024");
  // A week begins on Monday, the fifth.
  assert.is(kept({ weekly: 2 }), "04");
  assert.is(kept({ last: 1, weekly: 2, hourly: 2 }), "034");
  const other = pointAt("2026-01-01T00:00:00Z", "/dev/b");
  assert.equal(keptPoints([other, ...points], { last: 1 }, NOW_MS), [other, points[4]]);
});

test("a point from a wrong clock displaces no other one, and stays", async () => {
  const machine = new FakeMachine(4 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  machine.write(0, randomBytes(512));
  const before = machine.takenAt;
  machine.setClock("2036-01-01T00:00:00Z");
  const wrong = await exportToStore(store, optionsOf(machine));
  machine.setClock(before);
  machine.beginGeneration();
  const first = await exportToStore(store, optionsOf(machine));
  machine.write(0, randomBytes(512));
  // It continues the newest point of its own time: the other one is not newer, and would make each export a full one.
  const next = await exportToStore(store, optionsOf(machine));
  assert.is(next.parent, first.id);
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  const removed = await prune(store, { last: 1 }, false, { nowMs: NOW_MS, onNote });
  assert.equal(removed, [first]);
  assert.match(notes.join(), `point ${wrong.id} of ${machine.device} was taken at 2036-01-01`);
  assert.equal(await store.points(), [next, wrong]);
  // When the clock is right for it, it is a point like any other.
  assert.equal(await prune(store, { last: 1 }, false, { nowMs: Date.parse(wrong.taken_at) }), [
    next,
  ]);
  machine.remove();
});

test("a point is found by its id's beginning, or by a time; devices are not confused", () => {
  const points = [pointAt("2026-01-01T00:00:00Z"), pointAt("2026-01-02T00:00:00Z")];
  assert.is(findPoint(points, {}), points[1]);
  assert.is(findPoint(points, { at: points[0]!.id.slice(0, 13) }), points[0]);
  assert.is(findPoint(points, { at: "2026-01-01T12:00:00Z" }), points[0]);
  const both = [...points, pointAt("2026-01-03T00:00:00Z", "/dev/b")];
  assert.throws(() => findPoint(both, {}), /there are points of/);
  assert.is(findPoint(both, { device: "/dev/a" }), points[1]);
  assert.throws(() => findPoint(points, { at: "2025-01-01" }), /the oldest point/);
  assert.is(findPoint(points, { at: "2026-01-02" }), points[1]);
  assert.is(findPoint(points, { at: "2026-01-02T01:00+02:00" }), points[0]);
  // Ids of removed points, and words: they do not select the newest point.
  for (const at of ["nonsense", "4328", "decc65", "0007168", "2026", "point-7"]) {
    assert.throws(() => findPoint(points, { at }), /not a time/);
  }
  assert.throws(() => findPoint([], {}), /no point/);
});

test("changed ranges are split at chunks and clipped to the device", () => {
  const ranges = [
    { offset_bytes: CHUNK_BYTES - 512, length_bytes: 1024, kind: "changed" as const },
    { offset_bytes: 2 * CHUNK_BYTES, length_bytes: 4096, kind: "discarded" as const },
  ];
  const pieces = piecesByChunk(ranges, 2 * CHUNK_BYTES + 1024);
  assert.equal([...pieces.keys()], [0, 1, 2]);
  assert.equal(pieces.get(1), [{ startBytes: 0, lengthBytes: 512, isDiscarded: false }]);
  assert.is(pieces.get(2)?.[0]?.lengthBytes, 1024);
  assert.is(bytesToRead(pieces.get(2)!), 0);
});

function frameOf(packer: Zstd, data: Uint8Array): Uint8Array {
  return packer.compress(data) ?? wholeOf(storedPieces(data));
}

test("zstd of Node and of WebAssembly: each reads the other's frames, which tell their length", async () => {
  // Before Node 22.15 there is only one of them.
  const all = [nativeZstd(), await wasmZstd()].filter((one) => one !== undefined);
  assert.is(all.length, "zstdCompressSync" in zlib ? 2 : 1);
  for (const length of [1, 100, 255, 256, 70_000, MIB, CHUNK_BYTES]) {
    for (const data of [Buffer.alloc(length), randomBytes(length)]) {
      for (const packer of all) {
        const frame = frameOf(packer, data);
        assert.is(frameContentBytes(frame), length);
        for (const unpacker of all) {
          const found = unpacker.decompress(frame, length);
          assert.ok(data.equals(found));
          assert.is(found.buffer.byteLength, length);
          assert.throws(() => unpacker.decompress(frame.subarray(0, -1), length));
        }
      }
    }
  }
  const dense = frameOf(all.at(-1)!, randomBytes(CHUNK_BYTES));
  assert.ok(dense.length < 1.001 * CHUNK_BYTES);
  assert.ok(frameOf(all.at(-1)!, Buffer.alloc(CHUNK_BYTES, "as text")).length < CHUNK_BYTES / 100);
  assert.is(frameContentBytes(Buffer.from("no frame at all, this is")), undefined);
  assert.is(frameContentBytes(Buffer.alloc(0)), undefined);
});

test("a Node without zstd is detected", () => {
  assert.is(nativeZstd({ constants: {} }), undefined);
  assert.is(nativeZstd({ constants: { ZSTD_c_compressionLevel: 100 } }), undefined);
});

test("items in flight never exceed the limit, and none begins after a failure", async () => {
  let now = 0;
  let most = 0;
  const done: number[] = [];
  await inFlight([...Array(20).keys()], 3, async (item) => {
    most = Math.max(most, ++now);
    await new Promise(setImmediate);
    now--;
    done.push(item);
  });
  assert.is(most, 3);
  assert.is(done.length, 20);
  const begun: number[] = [];
  const failing = inFlight([...Array(20).keys()], 2, async (item) => {
    begun.push(item);
    await new Promise(setImmediate);
    if (item === 1) throw new Error("a planted fault");
  });
  await failureOf(failing);
  assert.ok(begun.length <= 4, `${begun.length} begun`);
});

test("progress reports bytes, and nothing left at the end", () => {
  const told: Progress[] = [];
  const meter = new Meter(100, (progress) => told.push(progress));
  meter.add(40);
  meter.add(60);
  assert.equal(
    told.map(({ done_bytes }) => done_bytes),
    [40, 100],
  );
  assert.is(told[1]?.left_ms, 0);
});

test.run();
