/**
 * Cached data of a file cannot be written back. Each open file reports that once, at its next sync: everyone who syncs
 * the same file has to learn of it, or some believe that data is on the medium that is not.
 */
import { constants } from "node:fs";
import { RegularFile } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HANG_OPTIONS } from "./hangs.js";
import { DISK_BYTES, STATE_DIRECTORY } from "./settings.js";
import { DEVICE, type World, within } from "./tracking-world.js";

const DEVICES = [DEVICE, "/dev/sdb"];
const STORE = "/var/tmp";
const FUSE = 0x6573_5546;
const BYTES = 4096;
const [OLD, NEW] = [5, 9];
const SYNC_MS = 40;
/** Stores are checked each second. */
const NOTICED_MS = 1500;

/** Writes the first bytes of a path. */
function write({ machine }: World, path: string, byte: number): Promise<unknown> {
  const user = machine.user(path);
  return user.write(0, new Uint8Array(BYTES).fill(byte), true).finally(() => user.close());
}

/** The store's file system has no direct I/O: everything written there is cached. */
function withoutDirectIo({ machine: { files } }: World): void {
  const open = files.open.bind(files);
  files.open = (path, how = "r", ...rest) => {
    if (path.startsWith(STORE) && typeof how === "number" && (how & constants.O_DIRECT) !== 0)
      throw Object.assign(new Error("EINVAL"), { code: "EINVAL", errno: -22 });
    return open(path, how, ...rest);
  };
}

function fileAt({ machine: { tree } }: World, path: string): RegularFile {
  const node = tree.node(path, "open");
  assert.instance(node, RegularFile);
  return node as RegularFile;
}

/** @returns whether the error was reported to anybody */
function loseCached(world: World): () => boolean {
  const [store] = world.machine.files.readdir(STORE);
  const file = fileAt(world, `${STORE}/${store}`);
  file.failWriteback();
  const take = file.takeError.bind(file);
  let isTold = false;
  file.takeError = (open) => {
    const error = take(open);
    isTold ||= error < 0;
    return error;
  };
  return () => isTold;
}

/** Whether a snapshot's record in the state directory names a loss of a store. */
function isLossRecorded({ machine: { files } }: World): boolean {
  const records = files
    .readdir(STATE_DIRECTORY)
    .filter((name) => /^snapshot-.*\.record$/.test(name));
  const texts = records.map((name) => Buffer.from(files.readFile(`${STATE_DIRECTORY}/${name}`)));
  return texts.some((text) => text.includes("storeCuts"));
}

test("a store's write error ends the persistence of all members before a write continues", () =>
  within(async (world) => {
    const { machine } = world;
    machine.addDisk("sdb", { sizeBytes: DISK_BYTES });
    withoutDirectIo(world);
    for (const device of DEVICES) {
      await world.run(world.driver.attach(device, { persistent: true }));
    }
    const { trackers } = await world.run(world.driver.status());
    const fronts = trackers.map(({ front }) => front);
    for (const front of fronts) await world.run(write(world, front, OLD));
    const options = { devices: DEVICES, stores: [STORE], limitBytes: 2 ** 22, persistent: true };
    const { id } = await world.run(world.driver.snapshotCreate(options));
    await world.run(world.driver.snapshotTake(id));

    const { medium } = machine.disksFs;
    medium.fault = ({ kind }) => (kind === "sync" ? { delayMs: SYNC_MS } : undefined);
    // No record is removed in time.
    medium.callHangs = (call) => call === "unlink";
    const writes = fronts.map((front) => write(world, front, NEW));
    await machine.sleep(SYNC_MS / 2);
    const [store] = machine.files.readdir(STORE);
    fileAt(world, `${STORE}/${store}`).failWriteback();
    // Whichever is first: the other's journal may not be written yet.
    await world.run(Promise.race(writes));
    machine.cut();
    medium.fault = undefined;
    medium.callHangs = undefined;
    await machine.settle();
    await world.start();
    const status = await world.run(world.driver.status());
    for (const { image } of status.snapshots.flatMap(({ devices }) => devices)) {
      if (typeof image !== "string") continue;
      const user = machine.user(image);
      const bytes = await world.run(user.read(0, BYTES));
      user.close();
      assert.is(bytes[0], OLD, `the first byte of ${image}`);
    }
  }, HANG_OPTIONS));

test("old data that is gone from a store's cache counts as lost, and no other data is read in its place", () =>
  within(async (world) => {
    const { machine } = world;
    withoutDirectIo(world);
    await world.attach();
    const { trackers } = await world.run(world.driver.status());
    const front = trackers[0]?.front as string;
    await world.run(write(world, front, OLD));
    await world.take();
    await world.run(write(world, front, NEW));
    const [store] = machine.files.readdir(STORE);
    fileAt(world, `${STORE}/${store}`).failWriteback();
    await machine.sleep(NOTICED_MS);
    const { snapshots } = await world.run(world.driver.status());
    const [device] = snapshots[0]?.devices ?? [];
    assert.equal(device?.lost_ranges, [{ offset_bytes: 0, length_bytes: BYTES }]);
    const user = machine.user(device?.image as string);
    assert.match(await world.run(user.read(0, BYTES).then(String, String)), "EIO");
    user.close();
  }));

test("after a kill right after a loss is on record, the next daemon handles the loss", () =>
  within(async (world) => {
    const { machine } = world;
    withoutDirectIo(world);
    await world.attach();
    const { trackers } = await world.run(world.driver.status());
    const front = trackers[0]?.front as string;
    await world.run(write(world, front, OLD));
    await world.take();
    await world.run(write(world, front, NEW));
    loseCached(world);
    // Before the record, only the kernel knows, of the dead daemon's files.
    for (let waited = 0; !isLossRecorded(world); waited++) {
      assert.ok(waited < 1_000_000, "no loss is on record after 10 s");
      await machine.sleep(0.01);
    }
    world.kill();
    await machine.settle();
    await world.start();
    const { snapshots } = await world.run(world.driver.status());
    const user = machine.user(snapshots[0]?.devices[0]?.image as string);
    assert.match(await world.run(user.read(0, BYTES).then(String, String)), "EIO");
    user.close();
  }));

test("a loss that a journal commit's sync meets is on record before the next check", () =>
  within(async (world) => {
    const { machine } = world;
    withoutDirectIo(world);
    await world.attach();
    const { trackers } = await world.run(world.driver.status());
    const front = trackers[0]?.front as string;
    await world.run(write(world, front, OLD));
    await world.take(true);
    const { medium } = machine.disksFs;
    medium.fault = ({ kind }) => (kind === "sync" ? { delayMs: SYNC_MS } : undefined);
    const writing = write(world, front, NEW);
    await machine.sleep(SYNC_MS / 2);
    const isTold = loseCached(world);
    await world.run(writing);
    assert.ok(isTold());
    medium.fault = undefined;
    world.kill();
    await machine.settle();
    await world.start();
    const { snapshots } = await world.run(world.driver.status());
    const user = machine.user(snapshots[0]?.devices[0]?.image as string);
    // The copy was repeated, or its block is lost.
    const first = user.read(0, BYTES).then(([byte]) => String(byte), String);
    assert.match(await world.run(first), new RegExp(`^${OLD}$|EIO`));
    user.close();
  }));

test("checking a store on a file system in user space takes no error from its journal's sync", () =>
  within(async (world) => {
    const { machine } = world;
    withoutDirectIo(world);
    await world.attach();
    const { trackers } = await world.run(world.driver.status());
    const front = trackers[0]?.front as string;
    await world.run(write(world, front, OLD));
    // It may keep data of an open file until that one is synced.
    machine.disksFs.type = FUSE;
    await world.take(true);
    const { medium } = machine.disksFs;
    medium.fault = ({ kind }) => (kind === "sync" ? { delayMs: NOTICED_MS } : undefined);
    const writing = write(world, front, NEW);
    await machine.sleep(1);
    const isTold = loseCached(world);
    while (!isTold()) await machine.sleep(1);
    await world.run(writing);
    medium.fault = undefined;
    const { snapshots } = await world.run(world.driver.status());
    assert.is(snapshots[0]?.persistent, false, "its journal would tell of what is not there");
  }));

test("an original's write error that a take meets is reported to callers that flush its front", () =>
  within(async (world) => {
    const { machine } = world;
    const path = "/mnt/original";
    machine.files.writeFile(path, new Uint8Array(DISK_BYTES), "w", 0o600);
    await world.run(world.driver.attach(path, { persistent: true }));
    const options = { devices: [path], stores: [STORE], limitBytes: 2 ** 22, persistent: true };
    const { id } = await world.run(world.driver.snapshotCreate(options));
    const { trackers } = await world.run(world.driver.status());
    const user = machine.user(trackers[0]?.front as string);
    await world.run(user.write(0, new Uint8Array(BYTES).fill(NEW), false));
    fileAt(world, path).failWriteback();
    const told = (work: Promise<unknown>) => world.run(work.then(String, String));
    assert.match(await told(world.driver.snapshotTake(id)), "could not be synced");
    assert.match(await told(user.flush()), "EIO");
    assert.is(await told(user.flush()), "undefined");
    user.close();
  }));

test.run();
