/** File systems are frozen for a take wherever they lie above the device, and always thawed. */
import { spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { linear } from "../lib/device-mapper.mjs";
import { loopDisk, nullDisk, partition } from "../lib/disks.mjs";
import { makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { endFio, startFio } from "../lib/fio.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const RECOVERY_LIMIT_MS = 300_000;

const FSFREEZE = "/usr/sbin/fsfreeze";
/**
 * An fsfreeze before the real one, for all daemons of this file: it takes notes, can be slow, and can play
 * one that finds a file system without FIFREEZE.
 */
const NOTES = "/tmp/blksnap-e2e-freeze";
const [SLOW, REFUSED] = ["slow", "refused"].map((name) => join(NOTES, name));
const WRAPPER = `#!/bin/sh
if grep -qxF "$(readlink "$2")" ${REFUSED} 2>/dev/null; then
  echo "fsfreeze: $2: freeze failed: Operation not supported" >&2
  exit 1
fi
${FSFREEZE} "$@"
status=$? path=$(readlink "$2")
echo "$1 $status $path" >>${NOTES}/calls
while [ "$1" = --freeze ] && [ "$(cat ${SLOW} 2>/dev/null)" = "$path" ]; do sleep 0.1; done
exit $status
`;
mkdirSync(NOTES, { recursive: true });
writeFileSync(join(NOTES, "fsfreeze"), WRAPPER, { mode: 0o755 });
/** A guard that thaws for longer than a second does so all at once, in no order: here that second is a minute. */
const SLEEP = '#!/bin/sh\n[ "$1" = 1 ] && set -- 60\nexec /usr/bin/sleep "$@"\n';
writeFileSync(join(NOTES, "sleep"), SLEEP, { mode: 0o755 });
process.env.PATH = `${NOTES}:${process.env.PATH}`;

const test = scenario(import.meta.url, { sampledIn: 2 });

/** The calls of fsfreeze since the last time, as "--freeze 0 /path". */
function takeNotes() {
  const path = join(NOTES, "calls");
  const lines = existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : [];
  rmSync(path, { force: true });
  return lines;
}

/** What a take does to these, frozen in this order. */
function frozenAndThawed(...paths) {
  return [
    ...paths.map((path) => `--freeze 0 ${path}`),
    ...paths.reverse().map((path) => `--unfreeze 0 ${path}`),
  ];
}

async function formatAndMount(t, type, device) {
  await makeFileSystem(type, device);
  return await mount(t, device);
}

/** A loop device over a new file. */
async function loopOver(t, file, sizeMib) {
  await run(["truncate", "-s", `${sizeMib}M`, file]);
  return loopDisk(t, sizeMib * MIB, { file });
}

function writeFiles(t, folder) {
  const load = { rw: "randwrite", bs: "4k", size: "4m", fsync: 8, allow_file_create: 1 };
  return startFio(t, join(folder, "load"), { ...load, time_based: true, runtime: 600 });
}

/** A frozen ext4 has an empty journal; one that was caught in the middle has not. */
async function needsRecovery(device) {
  return (await run(["dumpe2fs", "-h", device])).includes("needs_recovery");
}

test("partition, device-mapper node and loop device above the front, under writers", async (t) => {
  const daemon = await ownDaemon(t, ["--freeze-timeout", "120000"]);
  const device = await nullDisk(t, { sizeMib: 448 });
  const { front } = await attach(daemon.t, device);
  const [first, second] = await partition(front, [96, 340]);
  const outer = await formatAndMount(t, "ext4", first);
  const inner = await formatAndMount(t, "ext4", await loopOver(t, join(outer.path, "disk"), 32));
  const mapped = await formatAndMount(t, "xfs", await linear(t, second));
  const writers = [outer, inner, mapped].map(({ path }) => writeFiles(t, path));
  const isLoaded = ({ path }) => existsSync(join(path, "load"));
  await until("there is load", () => [outer, inner, mapped].every(isLoaded));
  writeFileSync(join(mapped.path, "note"), "written before the take, never synced");
  takeNotes();
  const snapshot = await takeSnapshot(daemon.t, [device]);
  assert.equal(takeNotes(), frozenAndThawed(inner.path, mapped.path, outer.path));
  for (const writer of writers) await endFio(writer);
  const [image] = snapshot.images;
  await until("the image's partitions are there", () => existsSync(`${image}p2`));
  assert.is(await needsRecovery(`${image}p1`), false);
  const mountedImage = await mountImage(t, "xfs", `${image}p2`, ["ro"]);
  assert.match(readFileSync(join(mountedImage.path, "note"), "utf8"), /never synced/);
  const outerImage = await mountImage(t, "ext4", `${image}p1`, ["ro"]);
  assert.is(await needsRecovery(join(outerImage.path, "disk")), false);
});

test("a file system that another program has frozen stays frozen after a take", async (t) => {
  const device = await nullDisk(t, { sizeMib: 32 });
  const { front } = await attach(t, device);
  const mounted = await formatAndMount(t, "ext4", front);
  await run([FSFREEZE, "--freeze", mounted.path]);
  let frozen = true;
  t.defer(() => frozen && run([FSFREEZE, "--unfreeze", mounted.path]));
  takeNotes();
  const snapshot = await takeSnapshot(t, [device]);
  assert.equal(takeNotes(), [`--freeze 1 ${mounted.path}`]);
  // Fails if it is not frozen.
  await run([FSFREEZE, "--unfreeze", mounted.path]);
  frozen = false;
  await snapshot.destroy();
});

test("a freeze that takes too long fails the take, and is undone when it ends", async (t) => {
  const daemon = await ownDaemon(t, ["--freeze-timeout", "20000"]);
  const device = await nullDisk(t, { sizeMib: 32 });
  const { front } = await attach(daemon.t, device);
  const mounted = await formatAndMount(t, "ext4", front);
  const { id } = await createSnapshot(daemon.t, [device]);
  writeFileSync(SLOW, mounted.path);
  t.defer(() => rmSync(SLOW, { force: true }));
  const error = await daemon.t.client.snapshotTake(id).catch((reason) => reason);
  assert.is(error.code ?? error.name, "FREEZE_TIMEOUT", String(error));
  rmSync(SLOW);
  await until("the guard has ended", () => guards().length === 0);
  writeFileSync(join(mounted.path, "file"), "x");
  const { snapshots } = await daemon.t.client.status();
  assert.is(snapshots[0].granted_bytes, 0, "slots of the failed take are still handed out");
  await daemon.t.client.snapshotTake(id);
  assert.match(takeNotes().join(), /--unfreeze 0 \S+$/);
});

/** A daemon beside the file's own, which may be killed; its `t` attaches and takes through it. */
async function ownDaemon(t, args) {
  const folder = "/run/blksnap/other";
  const options = {
    socketPath: "/run/blksnap/other.sock",
    name: "other",
    args: ["--state-dir", folder, ...args],
  };
  t.defer(() => rmSync(folder, { recursive: true, force: true }));
  const own = { options, daemon: await Daemon.start(options) };
  own.t = Object.create(t, {
    client: { get: () => own.daemon.client },
    folder: { value: t.folder },
    name: { value: (prefix) => t.name(prefix) },
    defer: { value: (step) => t.defer(step) },
  });
  t.defer(() => own.daemon.stop());
  return own;
}

function guards() {
  return readdirSync("/proc").filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes("\0freeze-guard\0");
    } catch {
      return false;
    }
  });
}

test("after a daemon is killed during a freeze, the next one serves and everything is thawed", async (t) => {
  const own = await ownDaemon(t, ["--freeze-timeout", "600000"]);
  const disks = [await nullDisk(t, { sizeMib: 32 }), await nullDisk(t, { sizeMib: 32 })];
  const fronts = [await attach(own.t, disks[0]), await attach(own.t, disks[1])];
  const [part] = await partition(fronts[0].front, [24]);
  const slow = await formatAndMount(t, "ext4", part);
  const quick = await formatAndMount(t, "ext4", fronts[1].front);
  const { id } = await createSnapshot(own.t, disks);
  takeNotes();
  writeFileSync(SLOW, slow.path);
  t.defer(() => rmSync(SLOW, { force: true }));
  const taking = own.t.client.snapshotTake(id).catch((error) => error);
  await until("both are frozen", () => {
    const path = join(NOTES, "calls");
    return existsSync(path) && readFileSync(path, "utf8").split("\n").length === 3;
  });
  own.daemon.kill("SIGKILL");
  await own.daemon.ended();
  assert.instance(await taking, Error);
  rmSync(SLOW);
  own.daemon = await Daemon.start(own.options);
  await until("the guard has ended", () => guards().length === 0, RECOVERY_LIMIT_MS);
  assert.equal(takeNotes().sort(), frozenAndThawed(quick.path, slow.path).sort());
  for (const { path } of [slow, quick]) {
    await run(["dd", "if=/dev/urandom", `of=${path}/file`, "bs=64k", "count=4", "conv=fsync"]);
  }
  await own.t.client.snapshotTake(id);
  assert.equal(takeNotes(), frozenAndThawed(quick.path, slow.path));
});

/** From now on these cannot be frozen, as vfat can't. */
function withoutFreezing(t, ...paths) {
  writeFileSync(REFUSED, `${paths.join("\n")}\n`);
  t.defer(() => rmSync(REFUSED, { force: true }));
}

/** Runs a script in a mount namespace of its own, which ends with the test; answers its process. */
async function container(t, script) {
  const ready = join(t.folder, t.name("ready-"));
  const inside = `mount --make-rprivate /; ${script}\ntouch ${ready}; exec sleep 1000`;
  const child = spawn("unshare", ["-m", "bash", "-ec", inside], { stdio: "ignore" });
  t.defer(async () => {
    child.kill("SIGKILL");
    await until("the container has ended", () => !existsSync(`/proc/${child.pid}/ns/mnt`));
    rmSync(ready);
  });
  await until("the container is ready", () => existsSync(ready));
  return child.pid;
}

/** An ext4 on a new device, and where others may mount it. */
async function formatted(t, sizeMib = 32) {
  const device = await nullDisk(t, { sizeMib });
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const path = join(t.folder, t.name("place-"));
  mkdirSync(path);
  t.defer(() => rmdirSync(path));
  return { device, front, path };
}

const MARK = (path) => `yes | head -c 300000 >${path}/marker;`;

/** What the image has of the file that was written before the take, and never synced. */
async function markerOf(t, image, options = ["ro"]) {
  const { path, unmount } = await mountImage(t, "ext4", image, options);
  const bytes = existsSync(join(path, "marker")) ? statSync(join(path, "marker")).size : 0;
  await unmount();
  return bytes;
}

async function reported(t, id) {
  const { snapshots } = await t.client.status();
  return snapshots.find((snapshot) => snapshot.id === id).file_systems;
}

test("a file system that is mounted only in a container is frozen, and reported by take and status", async (t) => {
  const { device, front, path } = await formatted(t);
  const pid = await container(t, `mount ${front} ${path}; ${MARK(path)}`);
  const { id } = await createSnapshot(t, [device]);
  takeNotes();
  const { images, file_systems } = await t.client.snapshotTake(id);
  assert.equal(takeNotes(), frozenAndThawed(path));
  const [{ device_number, ...told }] = file_systems;
  const frozen = {
    source: front,
    type: "ext4",
    mount_point: path,
    pid,
    state: "frozen",
    why: null,
  };
  assert.equal([file_systems.length, told], [1, frozen]);
  assert.match(device_number, /^\d+:\d+$/);
  assert.equal(await reported(t, id), file_systems);
  assert.is(await needsRecovery(images[0].image), false);
  assert.is(await markerOf(t, images[0].image), 300_000);
  assert.match((await ctl("status")).stdout, /1 file system frozen\n/);
});

test("a file system that is mounted over, or unmounted with a file open, is still frozen", async (t) => {
  const covered = await formatted(t);
  const open = await formatted(t);
  const folder = await formatted(t);
  await container(
    t,
    `mount ${covered.front} ${covered.path}; ${MARK(covered.path)} mount -t tmpfs x ${covered.path}
    mount ${open.front} ${open.path}; ${MARK(open.path)} exec 5<${open.path}/marker
    umount -l ${open.path}
    mount ${folder.front} ${folder.path}; ${MARK(folder.path)} cd ${folder.path}
    umount -l ${folder.path}`,
  );
  const all = [covered, open, folder];
  const { id } = await createSnapshot(
    t,
    all.map(({ device }) => device),
  );
  const { images, file_systems } = await t.client.snapshotTake(id);
  assert.equal(
    file_systems.map(({ source, state }) => [source, state]).sort(),
    all.map(({ front }) => [front, "frozen"]).sort(),
  );
  for (const { device } of all) {
    const { image } = images.find((one) => one.device === device);
    assert.is(await needsRecovery(image), false);
    assert.is(await markerOf(t, image), 300_000);
  }
  // Thawed, too.
  const pid = file_systems.find(({ source }) => source === folder.front).pid;
  writeFileSync(`/proc/${pid}/cwd/after`, "x");
  await run(["sync", "-f", `/proc/${pid}/cwd`]);
});

/** vfat, where the kernel has it; else one that withoutFreezing() makes the same. */
async function typeWithoutFreezing() {
  for (const module of ["vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1"]) {
    await run(["modprobe", module]).catch(() => undefined);
  }
  return /^\s+vfat$/m.test(readFileSync("/proc/filesystems", "utf8")) ? "vfat" : "ext4";
}

test("a file system without FIFREEZE is synced, and the image has its writes", async (t) => {
  const type = await typeWithoutFreezing();
  const device = await nullDisk(t, { sizeMib: 64 });
  const { front } = await attach(t, device);
  const mounted = await formatAndMount(t, type, front);
  if (type !== "vfat") withoutFreezing(t, mounted.path);
  await run(["bash", "-c", MARK(mounted.path)]);
  const { id } = await createSnapshot(t, [device]);
  const required = await ctl("snapshot_take", "--id", id, "--require-freeze");
  assert.match(required.stderr, "EOPNOTSUPP");
  const { images, file_systems } = await t.client.snapshotTake(id);
  assert.equal(
    file_systems.map((found) => [found.type, found.mount_point, found.state, found.why]),
    [[type, mounted.path, "synced", "EOPNOTSUPP"]],
  );
  assert.is(await markerOf(t, images[0].image), 300_000);
});

test("a file system that cannot be frozen is synced, also above a frozen one", async (t) => {
  const device = await nullDisk(t, { sizeMib: 128 });
  const { front } = await attach(t, device);
  const outer = await formatAndMount(t, "ext4", front);
  const disk = loopOver(t, join(outer.path, "disk"), 32);
  const inner = await formatAndMount(t, "zeroed ext4", await disk);
  withoutFreezing(t, inner.path);
  await run(["bash", "-c", MARK(inner.path)]);
  const snapshot = await createSnapshot(t, [device]);
  const taken = await ctl("snapshot_take", "--id", snapshot.id);
  assert.match(taken.stdout, /^device=\S+\nimage=\S+\n$/);
  const said = `${inner.path} (ext4): synced, not frozen (EOPNOTSUPP)`;
  assert.is(taken.stderr, `blksnapctl: ${said}\n`);
  assert.match((await ctl("status")).stdout, `  1 file system frozen\n  ${said}\n`);
  const { image } = await t.client.snapshotInfo(device);
  const outerImage = await mountImage(t, "ext4", image, ["ro"]);
  const copy = join(t.folder, "inner");
  t.defer(() => rmSync(copy, { force: true }));
  copyFileSync(join(outerImage.path, "disk"), copy);
  assert.is(await markerOf(t, copy, ["loop"]), 300_000);
});

test("with --require-freeze a take of a file system that cannot be frozen fails, and leaves nothing frozen", async (t) => {
  const device = await nullDisk(t, { sizeMib: 64 });
  const { front } = await attach(t, device);
  const [first, second] = await partition(front, [30, 30]);
  const stubborn = await formatAndMount(t, "ext4", first);
  const other = await formatAndMount(t, "ext4", second);
  withoutFreezing(t, stubborn.path);
  const { id } = await createSnapshot(t, [device]);
  takeNotes();
  const taken = await ctl("snapshot_take", "--id", id, "--require-freeze", "--json");
  assert.is(JSON.parse(taken.stdout || taken.stderr).error.name, "FREEZE_FAILED");
  assert.equal(takeNotes(), frozenAndThawed(other.path));
  rmSync(REFUSED);
  assert.is((await ctl("snapshot_take", "--id", id, "--require-freeze")).status, 0);
});

test("a file system that was shut down by an error does not stop a take", async (t) => {
  const device = await nullDisk(t, { sizeMib: 512 });
  const { front } = await attach(t, device);
  const [first, second] = await partition(front, [340, 64]);
  const down = await formatAndMount(t, "xfs", first);
  const other = await formatAndMount(t, "ext4", second);
  t.expectKernelMessages(/XFS .*Log I\/O Error/);
  await run(["xfs_io", "-x", "-c", "shutdown", down.path]);
  const { id } = await createSnapshot(t, [device]);
  const failed = await ctl("snapshot_take", "--id", id, "--require-freeze");
  assert.match(failed.stderr, /not frozen/);
  const { file_systems } = await t.client.snapshotTake(id);
  const stateOf = ({ path }) => file_systems.find((one) => one.mount_point === path).state;
  assert.is(stateOf(other), "frozen");
  assert.is(stateOf(down), "not");
});

test("a sync that hangs delays a take only up to its limit, and is reported", async (t) => {
  const daemon = await ownDaemon(t, ["--freeze-timeout", "30000"]);
  const device = await nullDisk(t, { sizeMib: 64 });
  const { front } = await attach(daemon.t, device);
  const [first, second] = await partition(front, [30, 30]);
  const node = await linear(t, first);
  const stuck = await formatAndMount(t, "ext4", node);
  const other = await formatAndMount(t, "ext4", second);
  withoutFreezing(t, stuck.path);
  await run(["bash", "-c", MARK(stuck.path)]);
  await run(["dmsetup", "suspend", "--nolockfs", "--noflush", node]);
  t.defer(() => run(["dmsetup", "resume", node]));
  const { id } = await createSnapshot(daemon.t, [device]);
  const { file_systems } = await daemon.t.client.snapshotTake(id);
  const found = ({ path }) => file_systems.find((one) => one.mount_point === path);
  assert.is(found(other).state, "frozen");
  assert.is(found(stuck).state, "not");
  assert.match(found(stuck).why, /^EOPNOTSUPP, and its sync: ETIMEDOUT$/);
});

test.run();
