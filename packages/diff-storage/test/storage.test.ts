import {
  fstatSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import {
  commandStoreSystem,
  DiffStorage,
  type DiffStorageEvent,
  type DiffStorageOptions,
  openStore,
  type Store,
  type StoreSystem,
} from "@blksnap/diff-storage";
import { EventQueue } from "@blksnap/event-queue";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CutWatch } from "../dist/cut-watch.js";
import { StoreSpace } from "../dist/space.js";
import { ManualClock } from "../dist/testing/clock.js";
import { failsWith, SLOT_BYTES, withDirectory } from "./support.js";

const BASE: Omit<DiffStorageOptions, "stores"> = {
  system: commandStoreSystem,
  slotBytes: SLOT_BYTES,
  portionBytes: 32 * SLOT_BYTES,
};
/** Ends only a test that hangs. */
const EVENT_LIMIT_MS = 200_000;
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

test("several stores work together on real files", () =>
  withDirectory(async (directory) => {
    const events = new EventQueue<DiffStorageEvent>();
    const file = join(directory, "store");
    writeFileSync(file, "");
    const storage = await DiffStorage.open({
      ...BASE,
      stores: [
        { path: "memory", limitBytes: 16 * SLOT_BYTES },
        { path: file },
        { path: directory },
      ],
      limitBytes: 100 * SLOT_BYTES,
      events,
    });
    assert.equal(
      storage.stores.map(({ kind }) => kind),
      ["memory", "file", "directory"],
    );
    let slots = 0;
    for (;;) {
      const extent = await storage.allocateExtentWhenReady(16);
      if (extent === "full") break;
      slots += extent.count;
    }
    assert.is(slots, 100);
    assert.is(statSync(file).size, 84 * SLOT_BYTES);
    const event = await events.wait(EVENT_LIMIT_MS);
    assert.ok(event.kind === "event" && event.record.event.type === "no_space");
    assert.is(await storage.close(), true);
    assert.is(await storage.close(), true);
    assert.is(statSync(file).size, 84 * SLOT_BYTES, "a regular file stays as it has become");
    assert.is(storage.allocateExtent(1), "full");
  }));

test("a failure at the second store closes the first and leaves nothing behind", () =>
  withDirectory(async (directory) => {
    const file = join(directory, "store");
    writeFileSync(file, "");
    const before = openDescriptors();
    const stores = [{ path: directory, fileName: "made" }, { path: join(directory, "missing") }];
    await failsWith("STORE_NOT_FOUND", () => DiffStorage.open({ ...BASE, stores }));
    assert.equal(readdirSync(directory), ["store"]);
    assert.is(openDescriptors(), before);
  }));

test("a first portion that fails leaves a regular file unchanged", () =>
  withDirectory(async (directory) => {
    const file = join(directory, "store");
    writeFileSync(file, "");
    let calls = 0;
    const system: StoreSystem = {
      ...commandStoreSystem,
      async fallocate(fd, mode, offsetBytes, lengthBytes) {
        calls += 1;
        await commandStoreSystem.fallocate(fd, mode, offsetBytes, lengthBytes);
        if (calls > 1) throw Object.assign(new Error("full"), { code: "ENOSPC" });
      },
    };
    const before = openDescriptors();
    const error = await failsWith("STORE_FULL", () =>
      DiffStorage.open({ ...BASE, system, stores: [{ path: file }] }),
    );
    assert.is(error.neededBytes, 32 * SLOT_BYTES);
    assert.is(statSync(file).size, 0);
    assert.is(openDescriptors(), before);
  }));

test("space that a failed growth allocated is removed again", () =>
  withDirectory(async (directory) => {
    const file = join(directory, "store");
    writeFileSync(file, "");
    let broken = false;
    const system: StoreSystem = {
      ...commandStoreSystem,
      async fallocate(fd, mode, offsetBytes, lengthBytes) {
        await commandStoreSystem.fallocate(fd, mode, offsetBytes, lengthBytes);
        if (broken) throw Object.assign(new Error("full"), { code: "ENOSPC" });
      },
    };
    const events = new EventQueue<DiffStorageEvent>();
    const storage = await DiffStorage.open({ ...BASE, system, stores: [{ path: file }], events });
    broken = true;
    for (let i = 0; i < 10; i++) storage.allocateExtent(16);
    const event = await events.wait(EVENT_LIMIT_MS);
    assert.ok(event.kind === "event" && event.record.event.type === "growth_failed");
    await storage.close();
    assert.is(statSync(file).size, 32 * SLOT_BYTES);
  }));

test("a real file that is truncated and extended again between two checks is detected", async () => {
  // tmpfs is known to count preallocated space; other folders' file systems may not.
  const directory = mkdtempSync("/dev/shm/blksnap-cut-");
  try {
    const file = join(directory, "store");
    writeFileSync(file, "");
    const store = await openStore(file, { system: commandStoreSystem });
    const space = new StoreSpace(store, 0, SLOT_BYTES, 64);
    const cuts: StoreSpace[] = [];
    const onCut = (cut: StoreSpace): void => void cuts.push(cut);
    const watch = new CutWatch({ spaces: [space], clock: new ManualClock(), onCut });
    await watch.look(space);
    const { first, count } = space.beginGrowth(16);
    await store.preallocate(first * SLOT_BYTES, count * SLOT_BYTES);
    space.endGrowth(true);
    space.acquire(16);
    await watch.look(space);
    assert.equal(cuts, []);
    truncateSync(file, 8 * SLOT_BYTES);
    truncateSync(file, 16 * SLOT_BYTES);
    await watch.look(space);
    assert.equal(cuts, [space]);
    await store.close(true);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("a file without a name is still checked, by its size and its space", async () => {
  const directory = mkdtempSync("/dev/shm/blksnap-nameless-");
  try {
    const file = join(directory, "store");
    writeFileSync(file, "");
    const store = await openStore(file, { system: commandStoreSystem });
    await store.preallocate(0, 4 * SLOT_BYTES);
    rmSync(file);
    const sizeBytes = 4 * SLOT_BYTES;
    assert.equal(await store.presence?.(), { sizeBytes, allocatedBytes: sizeBytes });
    await store.close(true);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("a first portion larger than the disk reports what is available", () =>
  withDirectory(async (directory) => {
    const portionBytes = 2 ** 48;
    const error = await failsWith("STORE_FULL", () =>
      DiffStorage.open({
        ...BASE,
        portionBytes,
        slotBytes: 2 ** 22,
        stores: [{ path: directory }],
      }),
    );
    assert.is(error.neededBytes, portionBytes);
    assert.ok(error.availableBytes! > 0 && error.availableBytes! < portionBytes);
  }));

test("a restart finds the slots of the previous process", () =>
  withDirectory(async (directory) => {
    const spec = { path: directory, fileName: "old-data" };
    const first = await DiffStorage.open({ ...BASE, stores: [spec] });
    const extent = first.allocateExtent(4);
    if (typeof extent === "string") throw new Error(extent);
    await first.close({ keepNamedFiles: true });
    const second = await DiffStorage.open({
      ...BASE,
      stores: [spec],
      recoverSlots: [extent.firstSlot + 1],
    });
    assert.is(second.stats().allocatedBytes, SLOT_BYTES);
    await failsWith("SLOT_INVALID", () => second.free(extent.firstSlot, 1));
    second.free(extent.firstSlot + 1, 1);
    await second.close();
    assert.equal(readdirSync(directory), []);
  }));

test("a restart accepts files longer than the limit, as a kill can leave them, and tries nothing out", () =>
  withDirectory(async (directory) => {
    const spec = { path: directory, fileName: "old-data" };
    const user = { path: join(directory, "user") };
    writeFileSync(user.path, "");
    const limits = { ...BASE, stores: [spec, user], limitBytes: 8 * SLOT_BYTES };
    const first = await DiffStorage.open(limits);
    await first.close({ keepNamedFiles: true });
    // Killed halfway through finding out whether a file can grow.
    truncateSync(join(directory, "old-data"), 9 * SLOT_BYTES);
    truncateSync(user.path, 9 * SLOT_BYTES);
    const second = await DiffStorage.open({ ...limits, recoverSlots: [3] });
    assert.is(second.stats().allocatedBytes, SLOT_BYTES);
    assert.ok(second.stats().capacityBytes <= limits.limitBytes, "the limit holds for what is new");
    await second.close();
    const own = { path: user.path, limitBytes: SLOT_BYTES };
    const third = await DiffStorage.open({ ...BASE, stores: [own], recoverSlots: [5] });
    assert.is(third.stats().allocatedBytes, SLOT_BYTES);
    await third.close();
    assert.is(statSync(user.path).size, 9 * SLOT_BYTES);
  }));

test("stores are passed to onOpened before anything in them changes, and not used if it rejects", () =>
  withDirectory(async (directory) => {
    const [used, grown] = [join(directory, "used"), join(directory, "grown")];
    for (const file of [used, grown]) writeFileSync(file, Buffer.alloc(2 * SLOT_BYTES));
    const options: DiffStorageOptions = {
      ...BASE,
      stores: [{ path: used }, { path: grown }],
      recoverSlots: [0],
    };
    const seen: number[][] = [];
    const look = () => seen.push([used, grown].map((file) => statSync(file).mtimeMs));
    look();
    const before = openDescriptors();
    const onOpened = async (stores: readonly Store[]) => {
      assert.equal(
        stores.map(({ path }) => path),
        [used, grown],
      );
      // Longer than a growth takes to begin.
      await new Promise((done) => setTimeout(done, 20));
      look();
      throw new Error("not these");
    };
    const opening = DiffStorage.open({ ...options, onOpened });
    const refusal = await opening.then(
      () => "used",
      ({ message }) => message,
    );
    assert.is(refusal, "not these");
    look();
    assert.equal(seen[1], seen[0]);
    assert.equal(seen[2], seen[0]);
    assert.is(openDescriptors(), before);
  }));

test("after rest() nothing grows, and the stores are still open", () =>
  withDirectory(async (directory) => {
    const file = join(directory, "store");
    writeFileSync(file, "");
    const storage = await DiffStorage.open({ ...BASE, stores: [{ path: file }] });
    assert.ok(await storage.rest(10_000));
    const { size, mtimeMs } = statSync(file);
    assert.is(storage.allocateExtent(1), "full");
    storage.stores.forEach(({ fd }) => void fstatSync(fd));
    assert.ok(await storage.close());
    assert.equal([statSync(file).size, statSync(file).mtimeMs], [size, mtimeMs]);
  }));

test("limits are checked before anything is opened", async () => {
  const memory = { path: "memory" };
  await failsWith("LIMIT_REQUIRED", () => DiffStorage.open({ ...BASE, stores: [memory] }));
  for (const limitBytes of [0, -5, Number.NaN, 0.5, SLOT_BYTES / 2]) {
    await failsWith("LIMIT_INVALID", () =>
      DiffStorage.open({ ...BASE, stores: [memory], limitBytes }),
    );
  }
  await failsWith("STORE_COUNT_INVALID", () => DiffStorage.open({ ...BASE, stores: [] }));
  const nine = Array.from({ length: 9 }, () => ({ path: "memory", limitBytes: SLOT_BYTES }));
  await failsWith("STORE_COUNT_INVALID", () => DiffStorage.open({ ...BASE, stores: nine }));
});

test("existing files count against the limit of the whole storage", () =>
  withDirectory(async (directory) => {
    const paths = ["a", "b"].map((name) => join(directory, name));
    for (const path of paths) writeFileSync(path, Buffer.alloc(6 * SLOT_BYTES));
    const stores = paths.map((path) => ({ path }));
    for (const [limit, used] of [
      [12, [6, 6]],
      [11, [6, 5]],
      [6, [6, 0]],
      [2, [2, 0]],
    ] as const) {
      const limits = { limitBytes: limit * SLOT_BYTES, portionBytes: limit * SLOT_BYTES };
      const storage = await DiffStorage.open({ ...BASE, stores, ...limits });
      const sizes = storage.stats().stores.map(({ capacityBytes }) => capacityBytes / SLOT_BYTES);
      assert.equal(sizes, used, `limit of ${limit} slots`);
      await storage.close();
    }
    for (const path of paths) assert.is(statSync(path).size, 6 * SLOT_BYTES);
  }));

test("close is bounded; a store whose growth hangs is closed when that ends", () =>
  withDirectory(async (directory) => {
    let release: (() => void) | undefined;
    let hang = false;
    const system: StoreSystem = {
      ...commandStoreSystem,
      async fallocate(fd, mode, offsetBytes, lengthBytes) {
        if (hang) await new Promise<void>((done) => (release = done));
        await commandStoreSystem.fallocate(fd, mode, offsetBytes, lengthBytes);
      },
    };
    const storage = await DiffStorage.open({ ...BASE, system, stores: [{ path: directory }] });
    const before = openDescriptors();
    hang = true;
    for (let i = 0; i < 16; i++) storage.allocateExtent(16);
    while (release === undefined) await new Promise((done) => setTimeout(done, 1));
    const hold = setTimeout(() => undefined, 60_000);
    assert.is(await storage.rest(30), false, "it can still change its store");
    assert.is(await storage.close({ timeoutMs: 30 }), false);
    assert.is(openDescriptors(), before);
    release();
    while (openDescriptors() === before) await new Promise((done) => setTimeout(done, 5));
    clearTimeout(hold);
  }));

test("a store on which a caller's own write is in flight is closed when that ends", () =>
  withDirectory(async (directory) => {
    const storage = await DiffStorage.open({ ...BASE, stores: [{ path: directory }] });
    const before = openDescriptors();
    let fail: ((why: Error) => void) | undefined;
    const write = storage.track(new Promise<void>((_, reject) => (fail = reject)));
    const hold = setTimeout(() => undefined, 60_000);
    assert.is(await storage.rest(30), false, "it can still change its store");
    assert.is(await storage.close({ timeoutMs: 30 }), false);
    assert.is(openDescriptors(), before);
    fail?.(new Error("no answer"));
    assert.is(await write.then(String, String), "Error: no answer");
    while (openDescriptors() === before) await new Promise((done) => setTimeout(done, 5));
    clearTimeout(hold);
  }));

test.run();
