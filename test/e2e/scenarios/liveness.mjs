/** Protection of the daemon from memory shortage, and supervision of its reactors. */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { fileToBeRead, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { canUpdateSize } from "../lib/kernel-growth.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { threadFlags } from "../lib/threads.mjs";
import { until } from "../lib/wait.mjs";

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of Linux: what PR_SET_IO_FLUSHER sets. */
const IO_FLUSHER = 0x80000 | 0x100000;
const BLOCKER = new URL("../lib/block-reactors.mjs", import.meta.url).href;
const CORE_PATTERN = "/proc/sys/kernel/core_pattern";
const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });

function statusField(pid, name) {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)[1]);
}

for (const args of [[], ["--supervise"]]) {
  const how = args.length === 0 ? "alone" : "supervised";
  test(`all threads of a daemon ${how} are I/O flushers, its program is locked, it is not an OOM victim`, async (t) => {
    await Daemon.startFor(t, { args });
    const [device] = await ramDisks(t, 1, 16 * MIB);
    const { front } = await t.client.attach(device);
    const { destroy } = await takeSnapshot(t, [device], { stores: ["memory:"] });
    // The thread pool and the garbage collector's threads are at work too.
    await run(["dd", "if=/dev/zero", `of=${front}`, "bs=1M", "count=16", "oflag=direct"]);
    const { pid } = (await t.client.status()).daemon;
    const flags = threadFlags(pid);
    const unprotected = flags.filter((each) => (each & IO_FLUSHER) !== IO_FLUSHER);
    assert.equal(
      unprotected,
      [],
      "threads that may wait for their own devices when memory is short",
    );
    assert.ok(flags.length > 4);
    const lockedKib = statusField(pid, "VmLck");
    assert.ok(lockedKib > 0, "nothing is locked");
    console.log(`${how}: ${lockedKib} KiB locked, ${statusField(pid, "VmRSS")} KiB resident`);
    assert.is(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8").trim(), "-1000");
    await destroy();
    await t.client.detach(device);
    await t.daemon.stop();
  });
}

test("a path on a hung file system is refused in time, and everything else continues", async (t) => {
  await Daemon.startFor(t);
  const [below, device] = await ramDisks(t, 2, 48 * MIB);
  const disk = await MappedDisk.create(t, below, 48 * MIB);
  const { file, unmount } = await fileToBeRead(t, disk.path);
  await disk.keepReads();
  const attached = await t.client.attach(file).catch((error) => error);
  assert.equal([attached.code, attached.errnoName], ["DEVICE_FAILED", "ETIMEDOUT"]);
  const { front } = await t.client.attach(device);
  const snapshot = { devices: [device], stores: [dirname(file)], limitBytes: MIB };
  const created = await t.client.snapshotCreate(snapshot).catch((error) => error);
  assert.equal([created.code, created.errnoName], ["STORE_FAILED", "ETIMEDOUT"]);
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=16", "oflag=direct"]);
  await run(["cmp", "-n", String(16 * MIB), front, device]);
  await t.client.detach(device);
  // The process that looks up the path still waits for the disk; the daemon does not.
  await t.daemon.stop();
  await disk.heal();
  await unmount();
});

test("a crashing daemon writes no core dump to its own front", async (t) => {
  await Daemon.startFor(t);
  const [device] = await ramDisks(t, 1, 48 * MIB);
  const { front } = await t.client.attach(device);
  await makeFileSystem("ext4", front);
  const mounted = await mount(t, front);
  const before = readFileSync(CORE_PATTERN, "utf8");
  t.defer(() => writeFileSync(CORE_PATTERN, before));
  writeFileSync(CORE_PATTERN, `${mounted.path}/core`);
  const { pid } = (await t.client.status()).daemon;
  await run(["prlimit", "--pid", String(pid), "--core=unlimited"]);
  // This is how V8 ends when it has no memory left.
  t.daemon.kill("SIGABRT");
  await t.daemon.ended();
  await Daemon.startFor(t, { name: "next" });
  assert.equal(readdirSync(mounted.path), ["lost+found"]);
  await mounted.unmount();
  await t.client.detach(device);
  await t.daemon.stop();
});

test("the kernel notices a death at once: one command stays parked where that is needed", async (t) => {
  await Daemon.startFor(t, { args: ["--front-depth", "8", "--image-depth", "6"] });
  const [device] = await ramDisks(t, 1, 16 * MIB);
  const { front } = await t.client.attach(device);
  const { destroy, images } = await takeSnapshot(t, [device], { stores: ["memory:"] });
  const setting = (path, name) =>
    readFileSync(`/sys/block/${basename(path)}/queue/${name}`, "utf8").trim();
  assert.equal(
    [front, images[0]].map((path) => setting(path, "nr_requests")),
    canUpdateSize ? ["8", "6"] : ["7", "5"],
  );
  for (const path of [front, images[0]])
    assert.match(setting(path, "scheduler"), /\[none\]|^none$/);
  await destroy();
  await t.client.detach(device);
  await t.daemon.stop();
});

test("a stalled reactor is reported, and status still answers", async (t) => {
  const flag = join(t.folder, "block");
  const env = { NODE_OPTIONS: `--import ${BLOCKER}`, E2E_BLOCK_REACTORS: flag };
  await Daemon.startFor(t, { env });
  t.defer(() => rmSync(flag, { force: true }));
  const [device] = await ramDisks(t, 1, 16 * MIB);
  const { front } = await t.client.attach(device);
  await run(["dd", "if=/dev/zero", `of=${front}`, "bs=1M", "count=1", "oflag=direct"]);
  const { trackers } = await t.client.status();
  writeFileSync(flag, "");
  // On a machine that stalls, another one may be reported, too.
  const stalled = await until("the stall is in status", async () => {
    const { reactors } = await t.client.status();
    return reactors.find(
      ({ index, stalled_ms }) => index === trackers[0].reactor && stalled_ms > 0,
    );
  });
  assert.is(stalled.devices, 1);
  const status = await t.client.status();
  assert.is(status.trackers[0].io.writes, trackers[0].io.writes, "the last known counters");
  const text = (await ctl("status")).stdout;
  assert.match(text, `reactor ${stalled.index} has stalled for`);
  const metric = new RegExp(
    `^blksnap_reactor_stalled_seconds\\{reactor="${stalled.index}"\\} (.+)$`,
    "m",
  );
  assert.ok(Number(metric.exec(await t.client.metrics())[1]) > 0);
  assert.match(t.daemon.log(), `reactor ${stalled.index} has not turned for a second`);
  rmSync(flag);
  const turns = async () => {
    const { reactors } = await t.client.status();
    return reactors[stalled.index].stalled_ms === 0;
  };
  await until("it turns again", turns);
  // A stall of the machine may have caused another report.
  assert.ok((await t.client.status()).reactors[stalled.index].stalls >= 1);
  assert.match(t.daemon.log(), `reactor ${stalled.index} turns again`);
  await t.client.detach(device);
  await t.daemon.stop();
});

test.run();
