import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage, verify } from "../dist/care.js";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { type Files, realFiles } from "../dist/files.js";
import { type Manifest, manifestText, parseManifest } from "../dist/manifest.js";
import { checkMeant, checkReadable, findPoint } from "../dist/points.js";
import { restore } from "../dist/restore.js";
import { BackupStore, type DamagedPoint } from "../dist/store.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";
import { endHolders, fullAfter, KilledFiles } from "./faulty-files.js";

/** Two whole chunks and a part. */
const CAPACITY_BYTES = 8 * MIB + 196_608;

function optionsOf(machine: FakeMachine, more: Partial<ExportOptions> = {}): ExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, ...more };
}

async function assertRestores(
  machine: FakeMachine,
  store: BackupStore,
  point: Manifest,
  content: Buffer,
): Promise<void> {
  const target = machine.path("restored");
  await restore({ store, point, target });
  await assertSame(target, content);
  rmSync(target);
}

function chunkFiles(store: BackupStore): string[] {
  const folder = join(store.path, "chunks");
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return files.filter((name) => name.endsWith(".zst")).map((name) => join(folder, name));
}

test("full and incremental points are restored; unchanged data is stored once", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  machine.write(0, randomBytes(5 * MIB));
  const notes: string[] = [];
  const onPlan: ExportOptions["onPlan"] = ({ reason }) => notes.push(String(reason));
  const full = await exportToStore(store, optionsOf(machine, { onPlan }));
  assert.is(full.kind, "full");
  assert.is(full.read_bytes, CAPACITY_BYTES);
  assert.is(full.chunks[2], null);
  assert.match(notes[0]!, /no backup of \/dev\/vg\/data yet/);
  const first = Buffer.from(machine.content);
  machine.write(4 * MIB + 65_536, randomBytes(65_536));
  machine.discard(0, 131_072);
  machine.write(8 * MIB + 131_072, randomBytes(65_536));
  const next = await exportToStore(store, optionsOf(machine));
  assert.is(next.kind, "incremental");
  assert.is(next.parent, full.id);
  assert.is(next.read_bytes, 2 * 65_536);
  assert.is(machine.destroyed, 2);
  await assertRestores(machine, store, full, first);
  await assertRestores(machine, store, next, machine.content);
  assert.is((await verify(store, await store.points())).damaged.length, 0);
  machine.remove();
});

test("devices and hosts share chunks", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  machine.write(0, randomBytes(4 * MIB));
  const { stored_bytes } = await exportToStore(store, optionsOf(machine));
  assert.ok(stored_bytes >= 4 * MIB);
  const other = new FakeMachine(CAPACITY_BYTES, "/dev/vg/other");
  other.write(4 * MIB, machine.content.subarray(0, 4 * MIB));
  const copy = await exportToStore(store, optionsOf(other, { host: "there" }));
  assert.is(copy.stored_bytes, 0);
  await assertRestores(other, store, copy, other.content);
  machine.remove();
  other.remove();
});

test("a kill at a step leaves the last point whole, and the next export completes", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const path = machine.path("store");
  machine.write(0, randomBytes(4 * MIB));
  const first = await exportToStore(await BackupStore.openOrCreate(path), optionsOf(machine));
  const before = Buffer.from(machine.content);
  machine.write(4 * MIB, randomBytes(2 * MIB));
  let kills = 0;
  for (let last = 1; ; last += last < 16 ? 1 : 2) {
    const killed = new KilledFiles(last);
    const attempt = BackupStore.open(path, killed.files).then((store) =>
      exportToStore(store, optionsOf(machine)),
    );
    const isDone = await attempt.then(
      () => killed.steps < last,
      () => false,
    );
    await endHolders(path);
    const store = await BackupStore.open(path);
    const points = await store.points();
    assert.is(points[0]?.id, first.id);
    assert.is((await verify(store, points)).damaged.length, 0);
    // A point that was published just before the kill is whole, too.
    for (const point of points.slice(1)) {
      assert.equal(point.chunks.length, 3);
      await store.removePoint(point);
    }
    if (isDone) break;
    kills++;
  }
  assert.ok(kills > 15, `${kills} kills`);
  const store = await BackupStore.open(path);
  const next = await exportToStore(store, optionsOf(machine));
  assert.is(next.parent, first.id);
  await assertRestores(machine, store, first, before);
  await assertRestores(machine, store, next, machine.content);
  await collectGarbage(store);
  assert.equal(readdirSync(join(path, "tmp")), []);
  await assertRestores(machine, store, next, machine.content);
  machine.remove();
});

function readTmp(path: string): string[] {
  return existsSync(join(path, "tmp")) ? readdirSync(join(path, "tmp")) : [];
}

test("a store whose creation was killed is created by the next export", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const path = machine.path("store");
  for (let last = 1; ; last++) {
    const killed = new KilledFiles(last);
    const made = await BackupStore.openOrCreate(path, killed.files).then(
      () => true,
      () => false,
    );
    if (made) break;
    // One leftover is enough: with more of them each attempt would have more work.
    for (const name of readTmp(path).slice(1)) rmSync(join(path, "tmp", name));
  }
  assert.equal(await (await BackupStore.open(path)).points(), []);
  machine.remove();
});

test("a full disk is a named error, leaves no point, and the next export reuses what was written", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(8 * MIB));
  const path = machine.path("store");
  await BackupStore.openOrCreate(path);
  const tight = await BackupStore.open(path, fullAfter(6 * MIB));
  const error = await failureOf(exportToStore(tight, optionsOf(machine)));
  assert.is(error.code, "TARGET_FULL");
  assert.is(machine.snapshotId, null);
  const store = await BackupStore.open(path);
  assert.equal(await store.points(), []);
  assert.is(chunkFiles(store).length, 1);
  const point = await exportToStore(store, optionsOf(machine));
  assert.ok(point.stored_bytes < 5 * MIB);
  await assertRestores(machine, store, point, machine.content);
  machine.remove();
});

test("a flipped byte is found by verify, named by restore, and the target looks incomplete", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(8 * MIB));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const [file] = chunkFiles(store);
  const whole = readFileSync(file!);
  for (const at of [0, 8, 100, whole.length - 1]) {
    const flipped = Buffer.from(whole);
    flipped[at]! ^= 0x10;
    writeFileSync(file!, flipped);
    const { damaged } = await verify(store, [point]);
    assert.is(damaged.length, 1, `byte ${at}`);
    assert.equal(damaged[0]?.points, [point.id]);
    assert.match(damaged[0]?.why, file!);
  }
  const target = machine.path("restored");
  const error = await failureOf(restore({ store, point, target }));
  assert.is(error.code, "BACKUP_DAMAGED");
  assert.match(error.message, file!);
  assert.not.ok(readdirSync(machine.folder).includes("restored"));
  rmSync(file!);
  assert.match((await verify(store, [point])).damaged[0]?.why, "is missing");
  machine.remove();
});

test("an export that needs a damaged chunk reads the image instead, and repairs the chunk", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(4 * MIB));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  await exportToStore(store, optionsOf(machine));
  const [file] = chunkFiles(store);
  writeFileSync(file!, "nothing");
  machine.write(0, machine.content.subarray(0, 512));
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  const next = await exportToStore(store, optionsOf(machine, { onNote }));
  assert.match(notes.join(), "the image is read instead");
  assert.is((await verify(store, await store.points())).damaged.length, 0);
  await assertRestores(machine, store, next, machine.content);
  machine.remove();
});

test("manifests: any flipped byte is found, and other versions are refused", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const text = manifestText(await exportToStore(store, optionsOf(machine)));
  for (let at = 0; at < text.length - 1; at += 7) {
    const flipped = Buffer.from(text);
    flipped[at]! ^= 1;
    const fault = await failureOf(
      (async () => parseManifest(flipped.toString("latin1"), "m.json"))(),
    );
    assert.ok(["BACKUP_DAMAGED", "BACKUP_VERSION"].includes(fault.code), fault.message);
  }
  const newer = text.replace('"version":1', '"version":2');
  const refused = await failureOf((async () => parseManifest(newer, "m.json"))());
  assert.is(refused.code, "BACKUP_VERSION");
  machine.remove();
});

test("a damaged manifest stops neither an export nor operations on other points", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const first = await exportToStore(store, optionsOf(machine));
  machine.write(0, randomBytes(65_536));
  const lost = await exportToStore(store, optionsOf(machine));
  const folder = join(store.path, "points");
  const file = join(folder, readdirSync(folder).at(-1)!);
  writeFileSync(file, readFileSync(file).subarray(0, -100));
  assert.is((await failureOf(store.points())).code, "BACKUP_DAMAGED");
  const damaged: DamagedPoint[] = [];
  const points = await store.points((one) => damaged.push(one));
  assert.equal(points, [first]);
  assert.is(damaged[0]?.path, file);
  assert.is(Date.parse(damaged[0]!.takenAt), Date.parse(first.taken_at) + 1000);
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  const next = await exportToStore(store, optionsOf(machine, { onNote }));
  assert.match(notes.join(), `${file} is damaged`);
  assert.is(next.parent, first.id);
  await assertRestores(machine, store, next, machine.content);
  // Which one was the newest is unknown then; an id selects a point in any case.
  const meant = (at?: string) => checkMeant(damaged, findPoint(points, { at }), { at });
  assert.throws(() => meant(), /it may be the requested point/);
  assert.throws(() => meant("2026-02-01"), /it may be the requested point/);
  meant(first.taken_at);
  meant(first.id.slice(0, 8));
  checkReadable(damaged, points, { at: first.id.slice(0, 8) });
  const named = { at: lost.id.slice(0, 8) };
  assert.throws(() => checkReadable(damaged, points, named), `${file} is damaged`);
  assert.throws(() => checkReadable(damaged, [], {}), `${file} is damaged`);
  checkMeant(damaged, next, {});
  machine.remove();
});

test("hashes that points share are stored once", async () => {
  const machine = new FakeMachine(4 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const one = await exportToStore(store, optionsOf(machine));
  const count = 16_384;
  const chunks = Array.from({ length: count }, () => randomBytes(32).toString("hex"));
  const large = { ...one, capacity_bytes: count * 4 * MIB, chunks };
  for (let at = 0; at < 16; at++) await store.publish({ ...large, id: randomUUID() });
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const heapBytes = (): number => {
    collect();
    return getHeapStatistics().used_heap_size;
  };
  const before = heapBytes();
  const points = await store.points();
  const bytes = heapBytes() - before;
  assert.is(points.length, 17);
  // A string of each is 80 bytes; each point needs 8 for each.
  assert.ok(bytes < count * (16 * 8 + 400), `${bytes} bytes`);
  machine.remove();
});

test("a damaged chunk that equals one just read is still repaired", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const content = randomBytes(4 * MIB);
  machine.write(4 * MIB, content);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  await exportToStore(store, optionsOf(machine));
  const [file] = chunkFiles(store);
  writeFileSync(file!, "nothing");
  // All of the first is read, so nothing is noticed; of the second only a part is read, and the rest is needed.
  machine.write(0, content);
  machine.write(4 * MIB, content.subarray(0, 65_536));
  const next = await exportToStore(store, optionsOf(machine));
  assert.is((await verify(store, await store.points())).damaged.length, 0);
  await assertRestores(machine, store, next, machine.content);
  machine.remove();
});

test("folder names are durable before files in them", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const path = machine.path("store");
  const done: string[] = [];
  const told: Files = {
    ...realFiles,
    rename: (from, to) => {
      done.push(`rename ${relative(path, dirname(to))}`);
      return realFiles.rename(from, to);
    },
    remove: (name) => {
      done.push(`remove ${relative(path, dirname(name))}`);
      return realFiles.remove(name);
    },
    syncFolder: (folder) => {
      done.push(`sync ${relative(path, folder)}`);
      return realFiles.syncFolder(folder);
    },
  };
  await BackupStore.openOrCreate(path);
  const store = await BackupStore.open(path, told);
  const point = await exportToStore(store, optionsOf(machine));
  const published = done.indexOf("rename points");
  assert.ok(done.slice(0, published).includes("sync chunks"));
  assert.ok(done.slice(done.indexOf("sync chunks"), published).includes("sync "));
  assert.is(done[published + 1], "sync points");
  await store.removePoint(point);
  done.length = 0;
  await collectGarbage(store);
  const removed = done.findIndex((step) => step.startsWith("remove chunks"));
  assert.ok(removed > done.indexOf("sync points"), done.join());
  assert.ok(done.includes("sync points"));
  machine.remove();
});

test("a folder with foreign files is not a store, and a missing one is none", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  writeFileSync(machine.path("thesis.txt"), "");
  const strange = await failureOf(BackupStore.openOrCreate(machine.folder));
  assert.is(strange.code, "TARGET_EXISTS");
  assert.is((await failureOf(BackupStore.open(machine.path("no")))).code, "BACKUP_NOT_FOUND");
  machine.remove();
});

test("folders are created with their parents, and failures name the reason", async () => {
  const machine = new FakeMachine(MIB);
  const path = machine.path("a/b/c");
  await realFiles.makeFolder(path);
  await realFiles.makeFolder(`${path}/`);
  assert.ok(existsSync(path));
  writeFileSync(machine.path("file"), "");
  for (const wrong of [machine.path("file"), machine.path("file/x"), "/proc/blksnap/x"]) {
    assert.is((await failureOf(realFiles.makeFolder(wrong))).code, "TARGET_FAILED", wrong);
  }
  machine.remove();
});

test("files of a store are refused as targets of its restores, even through links", async () => {
  const machine = new FakeMachine(MIB);
  machine.write(0, randomBytes(MIB));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const [name = ""] = readdirSync(join(store.path, "points"));
  symlinkSync(join(store.path, "points"), machine.path("link"));
  for (const target of [
    join(store.path, "points", name),
    join(machine.path("link"), name),
    join(store.path, "new"),
  ]) {
    const error = await failureOf(restore({ store, point, target, isDelta: true }));
    assert.is(error.code, "TARGET_EXISTS");
    assert.match(error.message, "lies in the backups at");
  }
  assert.equal(await store.points(), [point]);
  await restore({ store, point, target: `${store.path}-beside` });
  await assertSame(`${store.path}-beside`, machine.content);
  machine.remove();
});

test.run();
