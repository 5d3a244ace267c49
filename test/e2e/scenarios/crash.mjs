/**
 * The daemon killed under load, again and again: its users see a pause, nothing else.
 *
 * KILLS=N in the environment kills N times (default 3); the delays between kills follow SEED.
 */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { endFio, startFio } from "../lib/fio.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const KILLS = Number(process.env.KILLS ?? 3);
const DELAY_MAX_MS = 1500;
const SIZE_MIB = 48;
const RECOVERY_LIMIT_MS = 120_000;
const LOAD_LIMIT_S = 1200;

const test = scenario(import.meta.url, { daemon: false });
const SEED = process.env.SEED ?? String(Date.now());
const random = seededRandom(SEED);

async function servingPid(t) {
  const status = await t.client.status().catch(() => undefined);
  return status?.daemon.pid;
}

/** Kills the daemon that serves, and waits for the one that goes on in its place. */
async function killOnce(t) {
  const pid = await until("a daemon serves", () => servingPid(t), RECOVERY_LIMIT_MS);
  await sleep(random.below(DELAY_MAX_MS));
  process.kill(pid, "SIGKILL");
  const next = async () => {
    const other = await servingPid(t);
    return other !== undefined && other !== pid;
  };
  await until("the next daemon serves", next, RECOVERY_LIMIT_MS);
}

/** Recovery times that the daemons reported, in milliseconds. */
function recoveryTimes(t) {
  return [...t.daemon.log().matchAll(/"recoveryMs":(\d+)/g)].map((match) => Number(match[1]));
}

/** Offsets of the 64 KiB blocks in which two files differ. */
function changedBlocks(before, after, blockBytes) {
  const [a, b] = [readFileSync(before), readFileSync(after)];
  const changed = [];
  for (let at = 0; at < a.length; at += blockBytes) {
    if (!a.subarray(at, at + blockBytes).equals(b.subarray(at, at + blockBytes))) changed.push(at);
  }
  return changed;
}

function assertCovered(offsets, ranges) {
  for (const offset of offsets) {
    const hit = ranges.find(
      (range) =>
        range.offset_sectors * 512 <= offset &&
        offset < (range.offset_sectors + range.count_sectors) * 512,
    );
    assert.ok(hit, `the block at ${offset} changed, and diff does not say so`);
  }
}

test(
  `killed ${KILLS} times under fio --verify with a snapshot held`,
  async (t) => {
    t.daemon = await Daemon.start({ args: ["--supervise", "--reactors", "2"] });
    const [raw, formatted] = await ramDisks(t, 2, SIZE_MIB * MIB);
    const { front } = await t.client.attach(raw);
    const { front: ext4Front } = await t.client.attach(formatted);
    const copy = join(t.folder, "copy");
    const later = join(t.folder, "later");
    t.defer(() => rmSync(copy, { force: true }));
    t.defer(() => rmSync(later, { force: true }));
    await run(["dd", "if=/dev/urandom", `of=${copy}`, "bs=1M", `count=${SIZE_MIB}`]);
    await run(["dd", `if=${copy}`, `of=${front}`, "bs=1M", "oflag=direct"]);
    await makeFileSystem("ext4", ext4Front);
    const files = await mount(t, ext4Front);
    await run(["sh", "-c", `cp -r /usr/include/linux ${files.path}/ && sync`]);
    const sums = `cd "$1" && find linux -type f | sort | xargs md5sum`;
    const before = await run(["sh", "-c", sums, "sh", files.path]);

    const stores = [storeFolder(t)];
    const { destroy, images } = await takeSnapshot(t, [raw, formatted], { stores });
    const writing = startFio(
      t,
      front,
      {
        ioengine: "io_uring",
        iodepth: 32,
        direct: 1,
        rw: "randwrite",
        bsrange: "4k-64k",
        verify: "crc32c",
        verify_fatal: 1,
        time_based: true,
        runtime: LOAD_LIMIT_S,
      },
      { timeLimitMs: LOAD_LIMIT_S * 1000 },
    );
    for (let kill = 0; kill < KILLS; kill++) {
      await killOnce(t);
      await run([
        "sh",
        "-c",
        `rm -rf ${files.path}/linux/can && dd if=/dev/urandom of=${files.path}/new-${kill} bs=64k count=16 conv=fsync`,
      ]);
    }
    await endFio(writing);
    console.log(`recovered within ${recoveryTimes(t).join(", ")} ms`);

    await run(["cmp", images[0], copy]);
    const image = await mountImage(t, "ext4", images[1], ["ro"]);
    assert.is(await run(["sh", "-c", sums, "sh", image.path]), before);
    await image.unmount();
    await checkFileSystem("ext4", images[1]);
    await destroy();

    const second = await takeSnapshot(t, [raw, formatted], { stores });
    await run(["dd", `if=${second.images[0]}`, `of=${later}`, "bs=1M"]);
    const { ranges, block_size: blockBytes } = await t.client.diff(raw, 1);
    assertCovered(changedBlocks(copy, later, blockBytes), ranges);
    await second.destroy();
    await files.unmount();
    await checkFileSystem("ext4", ext4Front);
    await t.client.detach(raw);
    await t.client.detach(formatted);
    await t.daemon.stop();
  },
  { timeLimitMs: 1_500_000 },
);

test(
  "a daemon started by hand goes on where a killed one was",
  async (t) => {
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const alone = { socketPath: "/run/blksnap/other.sock", name: "other" };
    const args = ["--state-dir", "/run/blksnap/other"];
    t.defer(() => rmSync("/run/blksnap/other", { recursive: true }));
    const first = await Daemon.start({ ...alone, args });
    const { front } = await first.client.attach(device);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const { id } = await first.client.snapshotCreate({
      devices: [device],
      stores: ["memory:"],
      limitBytes: 64 * MIB,
    });
    const { images } = await first.client.snapshotTake(id);
    const before = await run(["sh", "-c", `md5sum < ${images[0].image}`]);
    await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
    const { snapshots: snapshotsBefore } = await first.client.status();
    first.kill("SIGKILL");
    await first.ended();
    // Asked while nobody serves: answered when somebody does.
    const reading = run(["sh", "-c", `md5sum < ${images[0].image}`]);
    const second = await Daemon.start({ ...alone, args });
    assert.is(await reading, before);
    assert.equal((await second.client.snapshotCollect())[0]?.id, id);
    const info = await second.client.cbtInfo(device);
    assert.is(info.changes_number, 1);
    assert.is(info.generation_reason, "first_attach");
    const { snapshots: snapshotsAfter } = await second.client.status();
    assert.is(snapshotsBefore[0].used_bytes, 4 * MIB);
    assert.is(snapshotsAfter[0].used_bytes, 4 * MIB);
    assert.is(snapshotsAfter[0].devices[0].chunks_used, 16);
    await second.client.snapshotDestroy(id);
    await second.client.detach(device);
    await second.stop();
  },
  { timeLimitMs: 600_000 },
);

test.run();
