import { createHash, randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { BlksnapClientError } from "@blksnap/client";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { BackupError } from "../dist/errors.js";
import { exportRaw } from "../dist/export-raw.js";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { realFiles } from "../dist/files.js";
import { hostOf } from "../dist/host.js";
import { restore } from "../dist/restore.js";
import { openImage } from "../dist/source.js";
import { BackupStore } from "../dist/store.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";
import { endHolders } from "./faulty-files.js";

const HERE = hostOf({ host: "here" });

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

/** The events so far when the destroy of the snapshot begins, which then lasts until `isOver`. */
function destroySlowly(machine: FakeMachine, isOver: () => boolean, open: () => number): string[] {
  const seen: string[] = [];
  const { snapshotDestroy } = machine.client;
  Object.assign(machine.client, {
    snapshotDestroy: async (id: string) => {
      seen.push(`${open()} open, target ${isOver() ? "complete" : "not complete"}`);
      while (!isOver()) await setImmediate();
      return await snapshotDestroy(id);
    },
  });
  return seen;
}

test("its own snapshot is destroyed once, while the target is completed, and awaited", () =>
  withStore(async (machine, store) => {
    let images = 0;
    const open: ExportOptions["open"] = async (path) => {
      const image = await openImage(path);
      images++;
      let isOpen = true;
      const close = async (): Promise<void> => {
        images -= isOpen ? 1 : 0;
        isOpen = false;
        await image.close();
      };
      return { ...image, close };
    };
    const target = machine.path("copy");
    const points = machine.path("store/points");
    const hasPoint = (): boolean => existsSync(points) && readdirSync(points).length > 0;
    const isWritten = (): boolean => existsSync(target) || hasPoint();
    const seen = destroySlowly(machine, isWritten, () => images);
    await exportRaw({ ...optionsOf(machine, { open }), target });
    assert.equal(seen, ["0 open, target not complete"]);
    rmSync(target);
    await exportToStore(store, optionsOf(machine, { open }));
    assert.equal(seen, new Array(2).fill("0 open, target not complete"));
    assert.is(machine.destroyed, 2);
  }));

test("a new generation: --since is refused with the reason, --auto starts a full one and says so", () =>
  withStore(async (machine, store) => {
    await exportToStore(store, optionsOf(machine));
    machine.beginGeneration();
    const refused = await failureOf(exportToStore(store, optionsOf(machine, since(1))));
    assert.is(refused.code, "BACKUP_CHAIN_BROKEN");
    assert.match(refused.message, "began a new generation");
    assert.is(machine.snapshotId, null);
    const reasons: unknown[] = [];
    const onPlan: ExportOptions["onPlan"] = ({ reason }) => reasons.push(reason);
    const { kind } = await exportToStore(store, optionsOf(machine, { onPlan }));
    assert.is(kind, "full");
    assert.match(String(reasons[0]), "began a new generation");
  }));

test("a take while changes are read: --since is refused, --auto reads everything and says why", () =>
  withStore(async (machine, store) => {
    await exportToStore(store, optionsOf(machine));
    const { client } = machine;
    const late: ExportOptions["client"] = {
      ...client,
      changedExtents: (...words) => {
        machine.number++;
        return client.changedExtents(...words);
      },
    };
    const refused = await failureOf(
      exportToStore(store, optionsOf(machine, { ...since(1), client: late })),
    );
    assert.is(refused.code, "BACKUP_CHAIN_BROKEN");
    machine.number = 1;
    const reasons: unknown[] = [];
    const onPlan: ExportOptions["onPlan"] = ({ reason }) => reasons.push(reason);
    const { kind } = await exportToStore(store, optionsOf(machine, { client: late, onPlan }));
    assert.is(kind, "full");
    assert.match(String(reasons[0]), "another snapshot was taken");
  }));

test("out of order: a number that no point has is refused, an earlier one is continued", () =>
  withStore(async (machine, store) => {
    const first = await exportToStore(store, optionsOf(machine));
    machine.write(65_536, randomBytes(65_536));
    await exportToStore(store, optionsOf(machine));
    const error = await failureOf(exportToStore(store, optionsOf(machine, since(7))));
    assert.is(error.code, "BACKUP_CHAIN_BROKEN");
    assert.match(error.message, "no point with number 7; it has 1, 2");
    const third = await exportToStore(store, optionsOf(machine, since(1)));
    assert.is(third.parent, first.id);
    assert.is(third.read_bytes, 65_536);
  }));

test("a snapshot that overflows or goes while it is read fails with a named error, and leaves no point", () =>
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
    // It was read completely, but is damaged all the same.
    const late: ExportOptions["onProgress"] = () => {
      machine.errorCode = -28;
    };
    const lost = await failureOf(exportToStore(store, optionsOf(machine, { onProgress: late })));
    assert.is(lost.code, "SNAPSHOT_CORRUPTED");
    assert.equal(await store.points(), []);
  }));

test("an image that was discarded from is refused, before and after it is read", () =>
  withStore(async (machine, store) => {
    machine.take();
    const raw = { target: machine.path("copy") };
    const late: ExportOptions["onProgress"] = () => {
      machine.discards = 1;
    };
    for (const more of [{ onProgress: late }, {}]) {
      const options = optionsOf(machine, more);
      const refused = await failureOf(exportToStore(store, options));
      assert.is(refused.code, "IMAGE_FAILED");
      assert.match(refused.message, `${machine.image} of ${machine.device} was discarded from`);
      assert.is((await failureOf(exportRaw({ ...options, ...raw }))).code, "IMAGE_FAILED");
    }
    assert.equal(await store.points(), []);
    assert.not.ok(existsSync(raw.target));
  }));

test("an image that was written to, or whose counters were lost with an earlier daemon, is refused", () =>
  withStore(async (machine, store) => {
    machine.take();
    machine.imageWrites = 1;
    const written = await failureOf(exportToStore(store, optionsOf(machine)));
    assert.is(written.code, "IMAGE_FAILED");
    assert.match(written.message, "was written to");
    machine.imageWrites = 0;
    // The daemon is replaced while the image is read; before that, the image was unchanged.
    const onProgress: ExportOptions["onProgress"] = () => {
      machine.isResumed = true;
    };
    for (const more of [{ onProgress }, {}]) {
      const unknown = await failureOf(exportToStore(store, optionsOf(machine, more)));
      assert.is(unknown.code, "IMAGE_FAILED");
      assert.match(unknown.message, "an earlier daemon took its snapshot");
    }
    assert.equal(await store.points(), []);
    // These images were not writable.
    machine.isReadOnly = true;
    assert.is((await exportToStore(store, optionsOf(machine))).kind, "full");
  }));

test("an image with a write that is only in the page cache is refused: it is counted when it is synced", () =>
  withStore(async (machine, store) => {
    machine.take();
    const open: ExportOptions["open"] = async (path) => {
      const image = await openImage(path);
      const sync = async (): Promise<void> => {
        await image.sync();
        machine.imageWrites = 1;
      };
      return { ...image, sync };
    };
    for (const target of [undefined, machine.path("copy")]) {
      machine.imageWrites = 0;
      const options = optionsOf(machine, { open });
      const exporting =
        target === undefined ? exportToStore(store, options) : exportRaw({ ...options, target });
      const refused = await failureOf(exporting);
      assert.is(refused.code, "IMAGE_FAILED");
      assert.match(refused.message, "was written to");
    }
    assert.equal(await store.points(), []);
    assert.not.ok(existsSync(machine.path("copy")));
  }));

test("a device whose node led elsewhere in between gives no point", () =>
  withStore(async (machine, store) => {
    const onProgress: ExportOptions["onProgress"] = () => {
      machine.isSpliceLost = true;
    };
    const lost = await failureOf(exportToStore(store, optionsOf(machine, { onProgress })));
    assert.is(lost.code, "SPLICE_LOST");
    assert.equal(await store.points(), []);
  }));

test("a number that was assigned twice, or later, belongs to no chain", () =>
  withStore(async (machine, store) => {
    await exportToStore(store, optionsOf(machine));
    const copy = { target: machine.path("copy") };
    await exportRaw({ ...optionsOf(machine), ...copy });
    // The device is as before these two, and changes in another way.
    const rounds = [
      { number: 0, clock: "2026-01-02T00:00:00Z", wanted: 1 },
      { number: 2, clock: "2025-01-01T00:00:00Z", wanted: 1 },
    ];
    const [first] = await store.points();
    for (const { number, clock, wanted } of rounds) {
      machine.content = randomBytes(CAPACITY_BYTES);
      machine.setClock(clock);
      machine.number = number;
      const refused = await failureOf(exportToStore(store, optionsOf(machine, since(wanted))));
      assert.is(refused.code, "BACKUP_CHAIN_BROKEN");
      assert.match(refused.message, `taken at ${first!.taken_at}, and this is`);
      machine.setClock(clock);
      machine.number = number;
      const point = await exportToStore(store, optionsOf(machine));
      assert.is(point.kind, "full");
      const target = machine.path("restored");
      await restore({ store, point, target });
      await assertSame(target, machine.content);
      rmSync(target);
      machine.setClock(clock);
      machine.number = number + 1;
      assert.is((await exportRaw({ ...optionsOf(machine), ...copy })).kind, "full");
      await assertSame(copy.target, machine.content);
      await store.removePoint(point);
    }
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
    assert.match(notes.join(), "already in the store");
    assert.is(machine.snapshotId, id);
    assert.is(machine.destroyed, 0);
  }));

test("an export does not suggest destroying the untaken snapshot of another export", () =>
  withStore(async (machine, store) => {
    const message = `${machine.device} is in snapshot 5f0c12ab`;
    const client = {
      ...machine.client,
      snapshotCreate: () =>
        Promise.reject(new BlksnapClientError("DEVICE_IN_OTHER_SNAPSHOT", message)),
    };
    const error = await failureOf(exportToStore(store, optionsOf(machine, { client })));
    assert.is(error.code, "DEVICE_IN_OTHER_SNAPSHOT");
    assert.match(error.message, `${message}, which is not taken yet`);
    assert.match(
      (error as BackupError).hint,
      /^If it belongs to another export, export again when.*: blksnapctl snapshot_destroy --id ID$/,
    );
    assert.is(machine.destroyed, 0);
  }));

for (const isEarlier of [false, true]) {
  const by = isEarlier ? "by a program that tells hosts apart by name, " : "";
  test(`the snapshot that a killed export has left, ${by}is destroyed by the next one, not read again`, () =>
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
      if (isEarlier) {
        const locks = join(store.path, "locks");
        const name = createHash("sha256").update(`here\n${machine.device}`).digest("hex");
        const [left] = readdirSync(locks);
        renameSync(join(locks, left as string), join(locks, `${name.slice(0, 32)}.snapshot`));
      }
      const next = await exportToStore(store, optionsOf(machine));
      assert.is.not(next.id, first.id);
      assert.is(next.changes_number, 2);
      assert.is(machine.destroyed, 2);
      assert.is(machine.snapshotId, null);
      assert.equal(readdirSync(join(store.path, "locks")), []);
    }));
}

test("an interrupt ends it, and destroys the snapshot", () =>
  withStore(async (machine, store) => {
    const interrupt = new AbortController();
    const onPlan = (): void => interrupt.abort();
    const options = optionsOf(machine, { signal: interrupt.signal, onPlan });
    assert.is((await failureOf(exportToStore(store, options))).code, "ABORTED");
    assert.is(machine.destroyed, 1);
    assert.equal(readdirSync(join(store.path, "locks")), []);
  }));

test("two exports of a device at once: the second is refused with a named error; exports of other devices run", () =>
  withStore(async (machine, store) => {
    const lock = await store.lockChain(HERE, machine.device);
    const error = await failureOf(exportToStore(store, optionsOf(machine)));
    assert.is(error.code, "BACKUP_BUSY");
    assert.match(error.message, `an export of ${machine.device}, by process ${process.pid}`);
    assert.is((await failureOf(store.lockAll("a gc"))).code, "BACKUP_BUSY");
    await (await store.lockChain(HERE, "/dev/other")).release();
    await lock.release();
    const cleaning = await store.lockAll("a gc");
    const late = await failureOf(exportToStore(store, optionsOf(machine)));
    assert.match(late.message, "a gc, by process");
    await cleaning.release();
    await exportToStore(store, optionsOf(machine));
  }));

test("the lock of a process that has ended is taken over; of another host it holds", () =>
  withStore(async (machine, store) => {
    await store.lockChain(HERE, machine.device);
    await endHolders(store.path);
    const lock = await store.lockChain(HERE, machine.device);
    const holder = JSON.parse(readFileSync(lock.path, "utf8")) as object;
    writeFileSync(lock.path, JSON.stringify({ ...holder, host: "elsewhere", began: "0" }));
    const error = await failureOf(store.lockChain(HERE, machine.device));
    assert.is(error.code, "BACKUP_BUSY");
    assert.match(error.message, "elsewhere");
    assert.is((await failureOf(lock.check())).code, "BACKUP_BUSY");
    // Another host with the same name, like two "localhost" that share a store.
    writeFileSync(lock.path, JSON.stringify({ ...holder, machine: "other", boot: "other" }));
    assert.is((await failureOf(store.lockChain(HERE, machine.device))).code, "BACKUP_BUSY");
    // Another container of this host, in which that pid is another process's, or unused.
    writeFileSync(lock.path, JSON.stringify({ ...holder, namespace: "other", began: "0" }));
    assert.is((await failureOf(store.lockChain(HERE, machine.device))).code, "BACKUP_BUSY");
    // This process, before it was restarted.
    writeFileSync(lock.path, JSON.stringify({ ...holder, boot: "other" }));
    await (await store.lockChain(HERE, machine.device)).release();
    await realFiles.remove(lock.path);
    await (await store.lockChain(HERE, machine.device)).release();
  }));

test.run();
