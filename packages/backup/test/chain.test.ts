import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { realFiles } from "../dist/files.js";
import { openImage } from "../dist/source.js";
import { BackupStore } from "../dist/store.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";
import { endHolders } from "./faulty-files.js";

const CAPACITY_BYTES = 4 * MIB;

function optionsOf(machine: FakeMachine, more: Partial<ExportOptions> = {}): ExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, ...more };
}

function since(number: number): Partial<ExportOptions> {
  return { wanted: { kind: "since", number } };
}

async function withStore(
  use: (machine: FakeMachine, store: BackupStore) => Promise<void>,
): Promise<void> {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(65_536));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  try {
    await use(machine, store);
  } finally {
    machine.remove();
  }
}

test("a new generation: --since is refused with the reason, --auto starts a full one and says so", () =>
  withStore(async (machine, store) => {
    await exportToStore(store, optionsOf(machine));
    machine.beginGeneration();
    const refused = await failureOf(exportToStore(store, optionsOf(machine, since(1))));
    assert.is(refused.code, "BACKUP_CHAIN_BROKEN");
    assert.match(refused.message, "began anew");
    assert.is(machine.snapshotId, null);
    const reasons: unknown[] = [];
    const onPlan: ExportOptions["onPlan"] = ({ reason }) => reasons.push(reason);
    const { kind } = await exportToStore(store, optionsOf(machine, { onPlan }));
    assert.is(kind, "full");
    assert.match(String(reasons[0]), "began anew");
  }));

test("out of order: a number that no point has is refused, an earlier one is continued", () =>
  withStore(async (machine, store) => {
    const first = await exportToStore(store, optionsOf(machine));
    machine.write(65_536, randomBytes(65_536));
    await exportToStore(store, optionsOf(machine));
    const error = await failureOf(exportToStore(store, optionsOf(machine, since(7))));
    assert.is(error.code, "BACKUP_CHAIN_BROKEN");
    assert.match(error.message, "no point of number 7, but of 1, 2");
    const third = await exportToStore(store, optionsOf(machine, since(1)));
    assert.is(third.parent, first.id);
    assert.is(third.read_bytes, 65_536);
  }));

test("a snapshot that overflows or goes while it is read fails by name, and leaves no point", () =>
  withStore(async (machine, store) => {
    const failing = (before: () => void): ExportOptions["open"] => {
      return async (path) => {
        const image = await openImage(path);
        before();
        return { ...image, read: () => image.close().then(() => image.read(Buffer.alloc(1), 0)) };
      };
    };
    const overflow = failing(() => {
      machine.errorCode = -28;
    });
    const full = await failureOf(exportToStore(store, optionsOf(machine, { open: overflow })));
    assert.is(full.code, "SNAPSHOT_CORRUPTED");
    const destroyed = failing(() => {
      machine.snapshotId = null;
    });
    const gone = await failureOf(exportToStore(store, optionsOf(machine, { open: destroyed })));
    assert.is(gone.code, "SNAPSHOT_NOT_FOUND");
    const broken = await failureOf(
      exportToStore(store, optionsOf(machine, { open: failing(() => undefined) })),
    );
    assert.is(broken.code, "IMAGE_FAILED");
    assert.equal(await store.points(), []);
    // It was read to the end, and is damaged all the same.
    const late: ExportOptions["onProgress"] = () => {
      machine.errorCode = -28;
    };
    const lost = await failureOf(exportToStore(store, optionsOf(machine, { onProgress: late })));
    assert.is(lost.code, "SNAPSHOT_CORRUPTED");
    assert.equal(await store.points(), []);
  }));

test("a snapshot that is there is read and stays; the same one twice is one point", () =>
  withStore(async (machine, store) => {
    machine.take();
    const id = machine.snapshotId;
    const first = await exportToStore(store, optionsOf(machine));
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const again = await exportToStore(store, optionsOf(machine, { onNote }));
    assert.is(again.id, first.id);
    assert.match(notes.join(), "in the store already");
    assert.is(machine.snapshotId, id);
    assert.is(machine.destroyed, 0);
  }));

test("the snapshot that a killed export has left is destroyed by the next one, not read again", () =>
  withStore(async (machine, store) => {
    const notes: string[] = [];
    const killed = {
      ...machine.client,
      snapshotDestroy: () => Promise.reject(new Error("a planted kill")),
    };
    const onNote = (text: string) => notes.push(text);
    const first = await exportToStore(store, optionsOf(machine, { client: killed, onNote }));
    assert.match(notes.join(), "a planted kill");
    assert.is.not(machine.snapshotId, null);
    const next = await exportToStore(store, optionsOf(machine));
    assert.is.not(next.id, first.id);
    assert.is(next.changes_number, 2);
    assert.is(machine.destroyed, 2);
    assert.is(machine.snapshotId, null);
    assert.equal(readdirSync(join(store.path, "locks")), []);
  }));

test("an interrupt ends it, and destroys the snapshot", () =>
  withStore(async (machine, store) => {
    const interrupt = new AbortController();
    const onPlan = (): void => interrupt.abort();
    const options = optionsOf(machine, { signal: interrupt.signal, onPlan });
    assert.is((await failureOf(exportToStore(store, options))).code, "ABORTED");
    assert.is(machine.destroyed, 1);
    assert.equal(readdirSync(join(store.path, "locks")), []);
  }));

test("two exports of a device at once: the second is refused by name; of others they go on", () =>
  withStore(async (machine, store) => {
    const lock = await store.lockChain("here", machine.device);
    const error = await failureOf(exportToStore(store, optionsOf(machine)));
    assert.is(error.code, "BACKUP_BUSY");
    assert.match(error.message, `an export of ${machine.device} by process ${process.pid}`);
    assert.is((await failureOf(store.lockAll("a gc"))).code, "BACKUP_BUSY");
    await (await store.lockChain("here", "/dev/other")).release();
    await lock.release();
    const cleaning = await store.lockAll("a gc");
    const late = await failureOf(exportToStore(store, optionsOf(machine)));
    assert.match(late.message, "a gc by process");
    await cleaning.release();
    await exportToStore(store, optionsOf(machine));
  }));

test("the lock of a process that has ended is taken over; of another host it holds", () =>
  withStore(async (machine, store) => {
    await store.lockChain("here", machine.device);
    await endHolders(store.path);
    const lock = await store.lockChain("here", machine.device);
    const holder = JSON.parse(readFileSync(lock.path, "utf8")) as object;
    writeFileSync(lock.path, JSON.stringify({ ...holder, host: "elsewhere", began: "0" }));
    const error = await failureOf(store.lockChain("here", machine.device));
    assert.is(error.code, "BACKUP_BUSY");
    assert.match(error.message, "elsewhere");
    assert.is((await failureOf(lock.check())).code, "BACKUP_BUSY");
    await realFiles.remove(lock.path);
    await (await store.lockChain("here", machine.device)).release();
  }));

test.run();
