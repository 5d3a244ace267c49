/** File systems are frozen for a take wherever they lie above the device, and thawed in any case. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { linear } from "../lib/device-mapper.mjs";
import { loopDisk, nullDisk, partition } from "../lib/disks.mjs";
import { makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { endFio, startFio } from "../lib/fio.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const RECOVERY_LIMIT_MS = 120_000;

const FSFREEZE = "/usr/sbin/fsfreeze";
/** An fsfreeze before the real one, for all daemons of this file: it takes notes, and can be slow. */
const NOTES = "/tmp/blksnap-e2e-freeze";
const SLOW = join(NOTES, "slow");
const WRAPPER = `#!/bin/sh
${FSFREEZE} "$@"
status=$?
path=$(readlink "$2")
echo "$1 $status $path" >>${NOTES}/calls
while [ "$1" = --freeze ] && [ "$(cat ${SLOW} 2>/dev/null)" = "$path" ]; do sleep 0.1; done
exit $status
`;
mkdirSync(NOTES, { recursive: true });
writeFileSync(join(NOTES, "fsfreeze"), WRAPPER);
chmodSync(join(NOTES, "fsfreeze"), 0o755);
process.env.PATH = `${NOTES}:${process.env.PATH}`;

const test = scenario(import.meta.url);

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
  const device = await nullDisk(t, { sizeMib: 448 });
  const { front } = await attach(t, device);
  const [first, second] = await partition(front, [96, 340]);
  const outer = await formatAndMount(t, "ext4", first);
  const inner = await formatAndMount(t, "ext4", await loopOver(t, join(outer.path, "disk"), 32));
  const mapped = await formatAndMount(t, "xfs", await linear(t, second));
  const writers = [outer, inner, mapped].map(({ path }) => writeFiles(t, path));
  for (const { path } of [outer, inner, mapped]) {
    await until("there is load", () => existsSync(join(path, "load")));
  }
  writeFileSync(join(mapped.path, "note"), "written before the take, never synced");
  takeNotes();
  const snapshot = await takeSnapshot(t, [device]);
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

test("a file system that somebody else has frozen stays frozen", async (t) => {
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

test("a freeze that takes too long fails the take and is thawed when it ends", async (t) => {
  const daemon = await ownDaemon(t, ["--freeze-timeout", "1500"]);
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

test("a daemon killed while frozen: the next one serves, and everything is thawed", async (t) => {
  const own = await ownDaemon(t, []);
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

test.run();
