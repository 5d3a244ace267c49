/**
 * The daemon killed while the kernel waits, for its sake, for one of its own devices. A process that
 * waits like that cannot end, and its devices would never get another server: so others wait for it
 * (packages/uring/src/apart.ts). And killed while an original keeps its request.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run, start } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile, ramDisks } from "../lib/disks.mjs";
import { fileToBeRead, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { requestsInFlight } from "../lib/in-flight.mjs";
import { IMAGE_GONE } from "../lib/kernel-log.mjs";
import { MappedDisk } from "../lib/mapped-disk.mjs";
import { untilOpen } from "../lib/open-files.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_BYTES = 48 * MIB;
const END_LIMIT_MS = 600_000;
const HOOK = new URL("../lib/hold-image-end.mjs", import.meta.url).href;
const STATE_LOCK = "/run/blksnap/state/lock";
const WRITEBACK_INTERVAL = "/proc/sys/vm/dirty_writeback_centisecs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });

/** A tracked device whose requests can be kept. */
async function keepingDevice(t, env = {}) {
  const [below] = await ramDisks(t, 1, SIZE_BYTES);
  const disk = await MappedDisk.create(t, below, SIZE_BYTES);
  const daemon = await Daemon.startFor(t, { env });
  const { front } = await daemon.client.attach(disk.path);
  return { daemon, disk, front };
}

/** Ends when another process makes the call for the daemon. */
function waitsInHelper(verb) {
  return until(`a process does "${verb}"`, () =>
    readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .some((pid) => nameOf(pid) === `apart:${verb}`),
  );
}

function nameOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return "";
  }
}

/**
 * What is written stays in the page cache, however long it lies there, until somebody asks for it. An hour and not
 * "never": with 0, what is first written to a new device wakes its writeback at once (fs/fs-writeback.c,
 * wb_wakeup_delayed), which goes by a threshold for the device that is next to nothing (wb_over_bg_thresh).
 */
function stopWriteback(t) {
  const before = readFileSync(WRITEBACK_INTERVAL, "utf8");
  t.defer(() => writeFileSync(WRITEBACK_INTERVAL, before));
  writeFileSync(WRITEBACK_INTERVAL, String(100 * 3600));
}

/** Kills the daemon: it must end with the disk as it is, and another one must serve what it has served. */
async function replace(t, daemon, disk) {
  daemon.kill("SIGKILL");
  await daemon.ended();
  await disk.heal();
  return Daemon.startFor(t, { name: "next" });
}

test(
  "killed while detach waits for what is in the front's page cache",
  async (t) => {
    const { daemon, disk, front } = await keepingDevice(t);
    // Held open, so that what is written stays in the page cache.
    const holder = start(["sh", "-c", `exec sleep infinity 3<${front}`], {
      timeLimitMs: END_LIMIT_MS,
    });
    t.defer(() => holder.end());
    t.defer(() => holder.kill("SIGKILL"));
    await untilOpen(holder.pid, front);
    stopWriteback(t);
    await run(["sh", "-c", `head -c ${4 * MIB} /dev/urandom > ${t.folder}/data`]);
    t.defer(() => run(["rm", `${t.folder}/data`]));
    await run(["dd", `if=${t.folder}/data`, `of=${front}`, "bs=1M", "conv=notrunc"]);
    await disk.keepWrites();
    const detaching = daemon.client.detach(disk.path).catch((error) => error);
    await waitsInHelper("fsync");
    const next = await replace(t, daemon, disk);
    assert.instance(await detaching, Error);
    assert.is((await next.client.status()).trackers[0].front, front);
    await next.client.detach(disk.path);
    await run(["cmp", `${t.folder}/data`, "-n", String(4 * MIB), disk.path]);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "killed while an image is removed during a read",
  async (t) => {
    t.expectKernelMessages(IMAGE_GONE);
    const folder = join(t.folder, "hold");
    mkdirSync(folder);
    t.defer(() => rmSync(folder, { recursive: true }));
    t.onFailure(() => {
      writeFileSync(join(folder, "go"), "");
      rmSync(join(folder, "held"), { force: true });
    });
    const env = { NODE_OPTIONS: `--import ${HOOK}`, E2E_HOLD_IMAGE_END: folder };
    const { daemon, disk, front } = await keepingDevice(t, env);
    const { id } = await daemon.client.snapshotCreate({
      devices: [disk.path],
      stores: ["memory:"],
      limitBytes: 64 * MIB,
    });
    const { images } = await daemon.client.snapshotTake(id);
    const destroying = daemon.client.snapshotDestroy(id).catch((error) => error);
    await until("nothing but the image's end is left", () => existsSync(join(folder, "held")));
    const words = [`if=${images[0].image}`, "of=/dev/null", "bs=4k", "count=1", "iflag=direct"];
    const reader = start(["dd", ...words], { timeLimitMs: END_LIMIT_MS });
    await until("the read is under way", () => requestsInFlight(images[0].image) > 0);
    writeFileSync(join(folder, "go"), "");
    await waitsInHelper("command");
    const next = await replace(t, daemon, disk);
    assert.instance(await destroying, Error);
    // With its data, or with an error: the image is being removed.
    await reader.end();
    assert.is((await next.client.status()).trackers[0].front, front);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const { snapshots } = await next.client.status();
    for (const snapshot of snapshots) await next.client.snapshotDestroy(snapshot.id);
    await next.client.detach(disk.path);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "killed while a file on the front is synced to be marked",
  async (t) => {
    const { daemon, disk, front } = await keepingDevice(t);
    await makeFileSystem("ext4", front);
    const mounted = await mount(t, front);
    const file = join(mounted.path, "file");
    stopWriteback(t);
    await run(["dd", "if=/dev/urandom", `of=${file}`, "bs=1M", "count=4"]);
    await disk.keepWrites();
    const marking = daemon.client.markDirtyFile(file).catch((error) => error);
    await waitsInHelper("extents");
    const next = await replace(t, daemon, disk);
    assert.instance(await marking, Error);
    await next.client.markDirtyFile(file);
    await mounted.unmount();
    await run(["e2fsck", "-f", "-n", front]);
    await next.client.detach(disk.path);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "killed during a lookup of a path above the front",
  async (t) => {
    const { daemon, disk, front } = await keepingDevice(t);
    const { file, unmount } = await fileToBeRead(t, front);
    await disk.keepReads();
    const attaching = daemon.client.attach(file).catch((error) => error);
    await waitsInHelper("stat");
    const next = await replace(t, daemon, disk);
    assert.instance(await attaching, Error);
    const refused = await next.client.attach(file).catch((error) => error);
    assert.is(refused.code, "DEVICE_OVERLAPS");
    await unmount();
    await next.client.detach(disk.path);
    await next.stop();
  },
  { timeLimitMs: 600_000 },
);

const storesOfKind = {
  directory: (t) => storeFolder(t),
  file: (t) => imageFile(t, 8 * MIB),
};

for (const [kind, storeOf] of Object.entries(storesOfKind)) {
  test(
    `a snapshot in a ${kind} outlives a daemon that was killed with a write stuck on its original`,
    async (t) => {
      const [below] = await ramDisks(t, 1, SIZE_BYTES);
      const disk = await MappedDisk.create(t, below, 8 * MIB);
      const first = await Daemon.startFor(t);
      const { front } = await first.client.attach(disk.path);
      await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=8", "oflag=direct"]);
      const { id } = await first.client.snapshotCreate({
        devices: [disk.path],
        stores: [storeOf(t)],
        limitBytes: 8 * MIB,
      });
      const { images } = await first.client.snapshotTake(id);
      const before = await run(["sh", "-c", `md5sum < ${images[0].image}`]);
      // The dead daemon's request holds all that the daemon had open, locks with it, until it ends.
      await disk.keepWrites();
      const dd = `dd if=/dev/zero of=${front} bs=4k count=1 seek=512 oflag=direct`;
      const writing = run(["sh", "-c", dd]);
      // Its old data is saved; what it still waits for is the original.
      const saved = async () => (await first.client.status()).snapshots[0].devices[0].copied_bytes;
      await until("a write waits for the original", async () => (await saved()) > 0);
      first.kill("SIGKILL");
      await first.ended();
      const starting = Daemon.startFor(t, { name: "next" });
      // From here on it tries to open what the dead one's request holds.
      const healed = untilOpen(t.daemon.pid, STATE_LOCK).then(() => disk.heal());
      const [next] = await Promise.all([starting, healed]);
      await writing;
      const { trackers, snapshots } = await next.client.status();
      assert.equal(
        snapshots.map((snapshot) => snapshot.id),
        [id],
      );
      assert.is(trackers[0].error_code, 0);
      const { image } = snapshots[0].devices[0];
      assert.is(await run(["sh", "-c", `md5sum < ${image}`]), before);
      await next.client.snapshotDestroy(id);
      await next.client.detach(disk.path);
      await next.stop();
    },
    { timeLimitMs: 600_000 },
  );
}

test.run();
