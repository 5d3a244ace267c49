/** prune and gc with manifests that are no points: unreadable ones, and ones with wrong names. */
import { randomBytes, randomUUID } from "node:crypto";
import {
  copyFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage, keptPoints, prune, verify } from "../dist/care.js";
import { targetError } from "../dist/errors.js";
import { exportToStore } from "../dist/export-store.js";
import { type Files, realFiles } from "../dist/files.js";
import { type Manifest, manifestText } from "../dist/manifest.js";
import { checkMeant } from "../dist/points.js";
import { BackupStore, type DamagedPoint } from "../dist/store.js";
import { optionsOf, pointAt } from "./care-points.js";
import { FakeMachine, failureOf, MIB, NOW_MS } from "./fake-machine.js";

interface Points {
  readonly machine: FakeMachine;
  readonly store: BackupStore;
  readonly points: readonly Manifest[];
  readonly pathOf: (point: Manifest | undefined) => string;
}

/** Points of one device, each with its own chunk. */
async function severalPoints(count: number, files: Files = realFiles): Promise<Points> {
  const machine = new FakeMachine(4 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"), files);
  const points: Manifest[] = [];
  for (let round = 0; round < count; round++) {
    machine.write(0, randomBytes(512));
    points.push(await exportToStore(store, optionsOf(machine)));
  }
  const pathOf = (point: Manifest | undefined): string => {
    const names = readdirSync(join(store.path, "points"));
    return join(store.path, "points", names.find((name) => name.includes(point!.id))!);
  };
  return { machine, store, points, pathOf };
}

test("prune leaves manifests that are not points alone, and removes no more than if they were", async () => {
  const { machine, store, points, pathOf } = await severalPoints(5);
  const torn = pathOf(points[3]);
  writeFileSync(torn, "{");
  const renamed = join(store.path, "points", "keep.json.old");
  renameSync(pathOf(points[2]), renamed);
  writeFileSync(join(store.path, "points", "notes.json"), "of others");
  const notes: string[] = [];
  const options = { nowMs: NOW_MS, onNote: (text: string) => notes.push(text) };
  const removed = await prune(store, { last: 2 }, false, options);
  assert.equal(removed, [points[0]]);
  assert.equal(await store.points(() => undefined), [points[1], points[4]]);
  assert.is(readFileSync(torn, "utf8"), "{");
  assert.match(notes.join("\n"), new RegExp(`${torn} is damaged: .*; it stays, and no rule`));
  assert.match(notes.join("\n"), new RegExp(`${renamed} is of point ${points[2]!.id} of .*; it`));
  assert.is(notes.length, 2);
  // It may be of a version whose points need others.
  writeFileSync(torn, JSON.stringify({ format: "blksnap-backup", version: 2 }));
  const later = await failureOf(prune(store, { last: 1 }, false, { nowMs: NOW_MS }));
  assert.is(later.code, "BACKUP_VERSION");
  assert.is((await failureOf(collectGarbage(store))).code, "BACKUP_VERSION");
  machine.remove();
});

test("gc keeps what a manifest with a wrong name needs, and frees nothing while one cannot be read", async () => {
  const { machine, store, points, pathOf } = await severalPoints(4);
  const own = pathOf(points[1]);
  const renamed = join(store.path, "points", "keep.json");
  renameSync(own, renamed);
  rmSync(pathOf(points[0]));
  const torn = [pathOf(points[2]), pathOf(points[3])];
  const texts = torn.map((path) => readFileSync(path));
  for (const path of torn) writeFileSync(path, "{");
  const refused = await failureOf(collectGarbage(store));
  assert.is(refused.code, "BACKUP_DAMAGED");
  for (const path of torn) assert.match(refused.message, path);
  for (const [index, path] of torn.entries()) writeFileSync(path, texts[index]!);
  const notes: string[] = [];
  const { removed_chunks, kept_chunks } = await collectGarbage(store, {
    onNote: (text) => notes.push(text),
  });
  assert.equal([removed_chunks, kept_chunks], [1, 3]);
  assert.match(notes.join(), `${renamed} is of point ${points[1]!.id}`);
  renameSync(renamed, own);
  assert.equal((await verify(store, await store.points())).damaged, []);
  machine.remove();
});

test("a manifest with a wrong name may be the selected point if it is a newer one of the device", async () => {
  const { machine, store, points, pathOf } = await severalPoints(2);
  const folder = join(store.path, "points");
  const [older, newer] = points;
  copyFileSync(pathOf(newer), join(folder, "copy.json"));
  const unread: DamagedPoint[] = [];
  await store.points((one) => unread.push(one));
  assert.is(unread.length, 1);
  checkMeant(unread, newer!, {});
  checkMeant(unread, { ...older!, device: "/dev/other" }, {});
  assert.throws(() => checkMeant(unread, older!, {}), /may be the requested point/);
  checkMeant(unread, older!, { at: older!.taken_at });
  machine.remove();
});

test("a manifest that the medium cannot read affects no other point", async () => {
  let sick: string | undefined;
  const files: Files = {
    ...realFiles,
    read: async (path) => {
      if (path === sick)
        throw targetError("read", path, Object.assign(new Error("EIO"), { code: "EIO" }));
      return await realFiles.read(path);
    },
  };
  const { machine, store, points, pathOf } = await severalPoints(3, files);
  sick = pathOf(points[1]);
  const told: string[] = [];
  assert.equal(await store.points(({ path }) => told.push(path)), [points[0], points[2]]);
  assert.equal(told, [sick]);
  assert.equal(await prune(store, { last: 1 }, false, { nowMs: NOW_MS }), [points[0]]);
  assert.match((await failureOf(collectGarbage(store))).message, sick);
  machine.remove();
});

test("while some points are unreadable, those without a machine id belong to no known machine", () => {
  const [first, second, third] = ["01", "02", "03"].map((day) =>
    pointAt(`2026-01-${day}T00:00:00Z`),
  );
  const points = [first!, { ...second!, machine_id: "a" }, { ...third!, machine_id: "a" }];
  assert.equal(keptPoints(points, { last: 1 }, NOW_MS), [points[2]]);
  assert.equal(keptPoints(points, { last: 1 }, NOW_MS, false), [points[0], points[2]]);
});

test("a manifest with a wrong file name makes gc remove nothing", async () => {
  const machine = new FakeMachine(4 * MIB);
  machine.write(0, randomBytes(MIB));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const victim = machine.path("victim.json");
  writeFileSync(victim, "mine");
  const name = `20380101T000000Z-${randomUUID()}.json`;
  const forged = { ...point, taken_at: "x", id: "/../../../victim" };
  assert.is(join(store.path, "points", `x-${forged.id}.json`), victim);
  writeFileSync(join(store.path, "points", name), manifestText(forged));
  const told: string[] = [];
  assert.equal(await store.points(({ why }) => told.push(why)), [point]);
  assert.match(told.join(), `${name} is of point ${forged.id} of x, whose file is x-`);
  assert.equal(await prune(store, { hourly: 1 }, false, { nowMs: NOW_MS }), []);
  await collectGarbage(store);
  assert.is(readFileSync(victim, "utf8"), "mine");
  machine.remove();
});

test.run();
