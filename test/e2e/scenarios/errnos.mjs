/**
 * Every errno that the kernel module documents, each by a test of its own: call by call. What the
 * module's interface alone can run into (short buffers, other filters) has no counterpart here.
 */
import { rmSync, truncateSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run, start } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { ctlWords } from "../lib/daemon.mjs";
import { imageFile, loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { holdings } from "../lib/leftovers.mjs";
import { NO_ID, refused } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url);
const ENOENT = 2;
const ESRCH = 3;
const ENXIO = 6;
const EFAULT = 14;
const EBUSY = 16;
const ENODEV = 19;
const EINVAL = 22;
const ENOSPC = 28;
const EROFS = 30;
const ENODATA = 61;
const EALREADY = 114;
/** A block major that no driver has (LOCAL/EXPERIMENTAL). */
const NOBODYS_MAJOR = "120";

/** A tracked device that is no more than a file. */
async function tracked(t, sizeBytes = 4 * MIB) {
  const device = imageFile(t, sizeBytes);
  await attach(t, device);
  return device;
}

/** A folder with a tmpfs of its own. */
async function tmpfs(t, options) {
  const path = join(t.folder, t.name("tmpfs-"));
  await run(["mkdir", path]);
  t.defer(() => run(["rmdir", path]));
  await run(["mount", "-t", "tmpfs", "-o", options, "none", path]);
  t.defer(() => run(["umount", path]));
  return path;
}

test("attach: ENOENT, no such device", async (t) => {
  await refused(t, "DEVICE_NOT_FOUND", ENOENT, () => t.client.attach("/dev/no-such-device"));
});

test("attach: ENXIO, a node whose device is gone", async (t) => {
  const node = join(t.folder, "gone");
  await run(["mknod", node, "b", NOBODYS_MAJOR, "0"]);
  t.defer(() => rmSync(node));
  await refused(t, "DEVICE_NOT_FOUND", ENXIO, () => t.client.attach(node));
});

test("attach: EALREADY is success, and says so", async (t) => {
  const device = await tracked(t);
  assert.is((await t.client.attach(device)).already_attached, true);
  const { status, stdout } = await ctl("attach", "--device", device);
  assert.is(status, 0);
  assert.match(stdout, /^Already was attached\n/);
});

test("attach: EBUSY, mounted", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  await makeFileSystem("ext4", device);
  const { unmount } = await mount(t, device);
  await refused(t, "DEVICE_BUSY", EBUSY, () => t.client.attach(device));
  await unmount();
});

test("attach: EBUSY, device-mapper holds it", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const name = t.name("blksnap-e2e-");
  await run(["dmsetup", "create", name, "--table", `0 ${(8 * MIB) / 512} linear ${device} 0`]);
  t.defer(() => run(["dmsetup", "remove", name]));
  await refused(t, "DEVICE_BUSY", EBUSY, () => t.client.attach(device));
});

test("detach: ENOENT, nothing attached", async (t) => {
  const device = imageFile(t, 4 * MIB);
  await refused(t, "NOT_ATTACHED", ENOENT, () => t.client.detach(device));
});

test("detach: EBUSY, in a snapshot that is taken", async (t) => {
  const device = await tracked(t);
  const { destroy } = await takeSnapshot(t, [device]);
  await refused(t, "DEVICE_IN_SNAPSHOT", EBUSY, () => t.client.detach(device));
  await destroy();
});

test("cbtinfo: ENOENT, not attached", async (t) => {
  const device = imageFile(t, 4 * MIB);
  await refused(t, "NOT_ATTACHED", ENOENT, () => t.client.cbtInfo(device));
});

test("cbtmap: ENODATA, beyond the map, also where their sum wraps around", async (t) => {
  const device = await tracked(t);
  const slice = (first, blocks) => () => t.client.readCbtMapSlice(device, first, blocks);
  assert.is((await t.client.readCbtMapSlice(device, 63, 1)).length, 1);
  await refused(t, "CBT_RANGE", ENODATA, slice(64, 1));
  await refused(t, "CBT_RANGE", ENODATA, slice(60, 10));
  await refused(t, "CBT_RANGE", ENODATA, slice(2 ** 32, 1));
  await refused(t, "CBT_RANGE", ENODATA, slice(Number.MAX_SAFE_INTEGER, 1));
});

test("cbtdirty: EINVAL, beyond the device, and then no block is marked", async (t) => {
  const device = await tracked(t);
  const mark = (...ranges) =>
    t.client.markDirty(
      device,
      ranges.map(([first, count]) => ({ offset_bytes: first * 512, length_bytes: count * 512 })),
    );
  await refused(t, "MARK_RANGE", EINVAL, () => mark([8190, 3]));
  await refused(t, "MARK_RANGE", EINVAL, () => mark([0, 8], [8192, 1]));
  await refused(t, "MARK_RANGE", EINVAL, () => mark([2 ** 44 - 1, 2 ** 44 - 1]));
  const { destroy } = await takeSnapshot(t, [device]);
  assert.equal((await t.client.diff(device, 0)).ranges, []);
  await destroy();
});

test("snapshotadd: ESRCH, unknown id", async (t) => {
  const device = await tracked(t);
  await refused(t, "SNAPSHOT_NOT_FOUND", ESRCH, () => t.client.snapshotAdd(NO_ID, device));
});

test("snapshotadd: EALREADY, in this snapshot already", async (t) => {
  const device = await tracked(t);
  const { id, destroy } = await createSnapshot(t, [device]);
  const again = () => t.client.snapshotAdd(id, device);
  await refused(t, "DEVICE_ALREADY_IN_SNAPSHOT", EALREADY, again);
  await destroy();
});

test("snapshotadd: EALREADY, the snapshot is taken", async (t) => {
  const device = await tracked(t);
  const late = await tracked(t);
  const { id, destroy } = await takeSnapshot(t, [device]);
  await refused(t, "SNAPSHOT_ALREADY_TAKEN", EALREADY, () => t.client.snapshotAdd(id, late));
  await destroy();
});

test("snapshotadd: EBUSY, in another snapshot", async (t) => {
  const device = await tracked(t);
  const one = await createSnapshot(t, [device]);
  const other = await createSnapshot(t, []);
  const add = () => t.client.snapshotAdd(other.id, device);
  await refused(t, "DEVICE_IN_OTHER_SNAPSHOT", EBUSY, add);
  await other.destroy();
  await one.destroy();
});

/** snapshot_create of nothing with this store. */
function creating(t, store, limitBytes = 4 * MIB) {
  return () => t.client.snapshotCreate({ devices: [], stores: [store], limitBytes });
}

test("snapshot_create: EBUSY, the store lies on a tracked device", async (t) => {
  const device = await loopDisk(t, 16 * MIB);
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const { path, unmount } = await mount(t, front);
  await refused(t, "STORE_ON_DEVICE", EBUSY, creating(t, path));
  await unmount();
});

test("snapshot_create: ENOENT, no such store", async (t) => {
  await refused(t, "STORE_NOT_FOUND", ENOENT, creating(t, join(t.folder, "none")));
});

test("snapshot_create: EINVAL, a store that is not a file, directory or block device", async (t) => {
  await refused(t, "STORE_INVALID", EINVAL, creating(t, "/dev/null"));
  const pipe = join(t.folder, "pipe");
  await run(["mkfifo", pipe]);
  t.defer(() => rmSync(pipe));
  await refused(t, "STORE_INVALID", EINVAL, creating(t, pipe));
});

test("snapshot_create: EROFS, a store on a read-only file system", async (t) => {
  const folder = await tmpfs(t, "size=8m");
  await run(["mount", "-o", "remount,ro", folder]);
  await refused(t, "STORE_NOT_PERMITTED", EROFS, creating(t, folder));
});

test("snapshot_create: EBUSY, a store that is mounted", async (t) => {
  const device = await loopDisk(t, 16 * MIB);
  await makeFileSystem("ext4", device);
  const { unmount } = await mount(t, device);
  await refused(t, "STORE_BUSY", EBUSY, creating(t, device));
  await unmount();
});

test("snapshot_create: ENOSPC, fallocate finds no room", async (t) => {
  const folder = await tmpfs(t, "size=256k");
  await refused(t, "STORE_FULL", ENOSPC, creating(t, folder));
});

test("snapshot_take: ESRCH, unknown id", async (t) => {
  await refused(t, "SNAPSHOT_NOT_FOUND", ESRCH, () => t.client.snapshotTake(NO_ID));
});

test("snapshot_take: ENODEV, no members", async (t) => {
  const { id, destroy } = await createSnapshot(t, []);
  await refused(t, "SNAPSHOT_EMPTY", ENODEV, () => t.client.snapshotTake(id));
  await destroy();
});

test("snapshot_take: EALREADY, taken before", async (t) => {
  const device = await tracked(t);
  const { id, destroy } = await takeSnapshot(t, [device]);
  await refused(t, "SNAPSHOT_ALREADY_TAKEN", EALREADY, () => t.client.snapshotTake(id));
  await destroy();
});

test("snapshot_take: EFAULT, the original has shrunk", async (t) => {
  const device = await tracked(t);
  const { id, destroy } = await createSnapshot(t, [device]);
  truncateSync(device, 2 * MIB);
  await refused(t, "DEVICE_CAPACITY_CHANGED", EFAULT, () => t.client.snapshotTake(id));
  truncateSync(device, 4 * MIB);
  await t.client.snapshotTake(id);
  await destroy();
});

test("snapshot_destroy: ENODEV, unknown id (elsewhere ESRCH)", async (t) => {
  await refused(t, "SNAPSHOT_NOT_FOUND", ENODEV, () => t.client.snapshotDestroy(NO_ID));
  const { id, destroy } = await createSnapshot(t, []);
  await destroy();
  await refused(t, "SNAPSHOT_NOT_FOUND", ENODEV, () => t.client.snapshotDestroy(id));
});

test("snapshot_waitevent: ENOENT is result=timeout", async (t) => {
  const { id, destroy } = await createSnapshot(t, []);
  assert.is(await t.client.waitEvent(id, 1), undefined);
  const { status, stdout } = await ctl("snapshot_waitevent", "--id", id, "--timeout", "1");
  assert.equal([status, stdout], [0, "result=timeout\n"]);
  await destroy();
});

/** The pipes of a started command's outputs are socket pairs. */
const OUTPUT_SOCKETS = 2;

test("snapshot_waitevent: EINTR is result=interrupted", async (t) => {
  const { id, destroy } = await createSnapshot(t, []);
  const waiting = start(ctlWords("snapshot_waitevent", "-i", id, "-t", "2147483647"));
  const sockets = () => holdings(waiting.pid).filter((name) => name === "socket").length;
  await until("the command is connected", () => sockets() > OUTPUT_SOCKETS);
  waiting.kill("SIGINT");
  const { status, stdout } = await waiting.end();
  assert.equal([status, stdout.toString()], [0, "result=interrupted\n"]);
  await destroy();
});

test("snapshot_waitevent: ESRCH, unknown id", async (t) => {
  await refused(t, "SNAPSHOT_NOT_FOUND", ESRCH, () => t.client.waitEvent(NO_ID, 0));
});

test("snapshot_waitevent: ESRCH, destroyed during a wait", async (t) => {
  const { id, destroy } = await createSnapshot(t, []);
  const waiting = t.client.waitEvent(id, 2 ** 31 - 1).catch((error) => error);
  await destroy();
  const { code, errno } = await waiting;
  assert.equal([code, errno], ["SNAPSHOT_NOT_FOUND", ESRCH]);
});

test.run();
