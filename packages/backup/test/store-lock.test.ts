/** Locks of a store that many hosts share: only reads, writes and lists keep them apart. */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { FakeS3 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage, verify } from "../dist/care.js";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { FolderObjects } from "../dist/folder-objects.js";
import { hostOf } from "../dist/host.js";
import type { Objects } from "../dist/objects.js";
import { openS3 } from "../dist/s3-objects.js";
import { BackupStore } from "../dist/store.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const HERE = hostOf({ host: "here" });

const MINUTE_MS = 60_000;
const NOWHERE = { host: "elsewhere", machine: "other", boot: "other" };

function optionsOf(machine: FakeMachine): ExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" } };
}

/** A bucket and a folder, each with a function that makes its locks another host's, of so many minutes ago. */
interface Place {
  readonly objects: Objects;
  toElsewhere(minutes: number): void;
  locks(): number;
}

async function inEachPlace(use: (place: Place, machine: FakeMachine) => Promise<void>) {
  const s3 = await FakeS3.listen();
  const machine = new FakeMachine(4 * MIB);
  try {
    const changed = (data: Buffer): Buffer =>
      Buffer.from(JSON.stringify({ ...JSON.parse(data.toString()), ...NOWHERE }));
    const limits = { delayMs: 1 };
    await use(
      {
        objects: openS3(`s3://${s3.bucket}`, { environment: s3.environment, limits }),
        toElsewhere(minutes) {
          for (const key of s3.keys("locks/").filter((one) => one.endsWith(".lock"))) {
            const { data, modifiedMs } = s3.objects.get(key)!;
            const before = modifiedMs - minutes * MINUTE_MS;
            s3.objects.set(key, { data: changed(data), modifiedMs: before });
          }
        },
        locks: () => s3.keys("locks/").length,
      },
      machine,
    );
    const folder = machine.path("store");
    await use(
      {
        objects: new FolderObjects(folder),
        toElsewhere(minutes) {
          for (const name of readdirSync(`${folder}/locks`)) {
            if (!name.endsWith(".lock")) continue;
            const path = `${folder}/locks/${name}`;
            writeFileSync(path, changed(readFileSync(path)));
            const seconds = Date.now() / 1000 - minutes * 60;
            utimesSync(path, seconds, seconds);
          }
        },
        locks: () => readdirSync(`${folder}/locks`).length,
      },
      machine,
    );
  } finally {
    s3.close();
    machine.remove();
  }
}

test("of many exports that begin at once for a device, one continues", () =>
  inEachPlace(async ({ objects, locks }) => {
    const store = await BackupStore.openOrCreate(objects);
    for (let round = 0; round < 5; round++) {
      const attempts = Array.from({ length: 4 }, () => store.lockChain(HERE, "/dev/a"));
      const settled = await Promise.allSettled(attempts);
      const taken = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
      assert.is(taken.length, 1);
      await taken[0]!.release();
      assert.is(locks(), 0);
    }
  }));

test("one continues, however slowly the others give up", () =>
  inEachPlace(async ({ objects, locks }) => {
    await BackupStore.openOrCreate(objects);
    const slow = Object.create(objects) as Objects;
    for (const name of ["get", "look", "list", "put", "sync", "pathOf"] as const) {
      Object.assign(slow, { [name]: objects[name].bind(objects) });
    }
    slow.remove = async (key) => {
      await setTimeout(200);
      await objects.remove(key);
    };
    const store = await BackupStore.open(slow);
    for (let round = 0; round < 3; round++) {
      const attempts = Array.from({ length: 3 }, () => store.lockChain(HERE, "/dev/a"));
      const settled = await Promise.allSettled(attempts);
      const taken = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
      assert.is(taken.length, 1);
      await taken[0]!.release();
      assert.is(locks(), 0);
    }
  }));

test("an export and a gc that begin at once never both continue", () =>
  inEachPlace(async ({ objects }) => {
    const store = await BackupStore.openOrCreate(objects);
    for (let round = 0; round < 5; round++) {
      const attempts = [store.lockChain(HERE, "/dev/a"), store.lockAll("a gc")];
      const settled = await Promise.allSettled(attempts);
      const taken = settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
      assert.is(taken.length, 1);
      await taken[0]!.release();
    }
    const [one, other] = [
      await store.lockChain(HERE, "/dev/a"),
      await store.lockChain(HERE, "/dev/b"),
    ];
    assert.is((await failureOf(store.lockAll("a gc"))).code, "BACKUP_BUSY");
    await Promise.all([one.release(), other.release()]);
  }));

test("a lock of another host counts for half an hour by the clock of the store", () =>
  inEachPlace(async ({ objects, toElsewhere, locks }) => {
    const store = await BackupStore.openOrCreate(objects);
    const lost = await store.lockChain(HERE, "/dev/a");
    toElsewhere(29);
    const error = await failureOf(store.lockAll("a gc"));
    assert.is(error.code, "BACKUP_BUSY");
    assert.match(error.message, "export of /dev/a");
    assert.match((error as { hint?: string }).hint!, "30 minutes");
    toElsewhere(31);
    const cleaning = await store.lockAll("a gc");
    assert.is(locks(), 1);
    assert.is((await failureOf(lost.check())).code, "BACKUP_BUSY");
    await cleaning.release();
    await lost.release();
    assert.is(locks(), 0);
  }));

test("a process that was suspended for so long changes nothing any more", () =>
  inEachPlace(async ({ objects }) => {
    const store = await BackupStore.openOrCreate(objects);
    const lock = await store.lockAll("a gc");
    const { now } = Date;
    try {
      lock.checkTime();
      Date.now = () => now() + 21 * MINUTE_MS;
      assert.throws(() => lock.checkTime(), /was suspended/);
      assert.is((await failureOf(lock.check())).code, "BACKUP_BUSY");
    } finally {
      Date.now = now;
    }
    await lock.release();
  }));

test("a lock whose check took too long is neither trusted nor renewed", () =>
  inEachPlace(async ({ objects }) => {
    const { now } = Date;
    const slow = Object.create(objects) as Objects;
    for (const name of ["look", "list", "put", "remove", "sync", "pathOf"] as const) {
      Object.assign(slow, { [name]: objects[name].bind(objects) });
    }
    slow.get = async (key) => {
      const data = await objects.get(key);
      if (key.startsWith("locks/")) Date.now = () => now() + 21 * MINUTE_MS;
      return data;
    };
    await BackupStore.openOrCreate(objects);
    const lock = await (await BackupStore.open(slow)).lockAll("a gc");
    try {
      assert.is((await failureOf(lock.check())).code, "BACKUP_BUSY");
    } finally {
      Date.now = now;
    }
    await lock.release();
  }));

test("a gc that considers an export dead costs only that export's point", () =>
  inEachPlace(async ({ objects, toElsewhere }, machine) => {
    machine.write(0, randomBytes(MIB));
    const store = await BackupStore.openOrCreate(objects);
    // Before and after the manifest is written.
    for (const folder of ["chunks/", "points/"]) {
      const slow = Object.create(objects) as Objects;
      slow.put = async (key, data, sha256) => {
        await objects.put(key, data, sha256);
        if (!key.startsWith(folder)) return;
        toElsewhere(31);
        await collectGarbage(await BackupStore.open(objects));
      };
      const methods = ["get", "look", "list", "remove", "sync", "pathOf"] as const;
      for (const name of methods) Object.assign(slow, { [name]: objects[name].bind(objects) });
      const failed = await failureOf(
        exportToStore(await BackupStore.open(slow), optionsOf(machine)),
      );
      assert.is(failed.code, "BACKUP_BUSY");
      assert.equal(await store.points(), []);
    }
    await exportToStore(store, optionsOf(machine));
    assert.is((await verify(store, await store.points())).damaged.length, 0);
  }));

test.run();
