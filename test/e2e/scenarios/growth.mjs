/**
 * Originals that grow under mounted fronts: the file system grows online, no write fails or is lost, no diff misses
 * one, whenever the daemon dies. Kernels that cannot do that: capacity.mjs.
 */
import { closeSync, openSync, readFileSync, readSync, truncateSync } from "node:fs";
import * as assert from "uvu/assert";
import { GROWTH_FAULT_POINTS } from "../../../packages/data-plane/dist/fault-points.js";
import { assertCovered, changedBlocks } from "../lib/changes.mjs";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile, loopDisk, partition } from "../lib/disks.mjs";
import { Faults } from "../lib/faults.mjs";
import {
  assertChecksums,
  checkFileSystem,
  checksums,
  makeFileSystem,
  mount,
  mountImage,
} from "../lib/file-systems.mjs";
import { enlargers, partitionGpt } from "../lib/gpt.mjs";
import { canUpdateSize, sizeOf, untilSize } from "../lib/kernel-growth.mjs";
import { Checker } from "../lib/live.mjs";
import { medium } from "../lib/medium.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, scenario, skip } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { killServing, servingPid, successor } from "../lib/successor.mjs";
import { until } from "../lib/wait.mjs";

const LONG = { timeLimitMs: 1_200_000 };
const TYPES = {
  ext4: { sizeBytes: 64 * MIB, make: "zeroed ext4", grow: ({ front }) => ["resize2fs", front] },
  xfs: { sizeBytes: 320 * MIB, make: "xfs", grow: ({ path }) => ["xfs_growfs", "-d", path] },
};
const STEP_BYTES = 16 * MIB;

/** POINTS=. has both file systems and partition tables, and deaths of both kinds of trackers; else a run has one of each, by its seed. */
const { POINTS, SEED = String(Date.now()) } = process.env;
const isThorough = POINTS !== undefined;
const part = seededRandom(SEED).below(2);
const types = Object.entries(TYPES).filter((_, index) => isThorough || index === part);
const kinds = [true, false].filter((_, index) => isThorough || index === part);

const test = scenario(import.meta.url, { daemon: false });

async function daemon(t, { faults, more = [] } = {}) {
  const env = faults === undefined ? {} : faults.environment;
  t.daemon = await Daemon.startFor(t, { args: ["--supervise", ...more], env });
}

/** A loop device over a file, and a way to make both larger; or the file alone. */
async function original(t, sizeBytes, isLoop) {
  const file = imageFile(t, sizeBytes);
  if (!isLoop) return { device: file, grow: async (bytes) => truncateSync(file, bytes) };
  const device = await loopDisk(t, sizeBytes, { file });
  async function grow(bytes) {
    truncateSync(file, bytes);
    await run(["losetup", "--set-capacity", device]);
  }
  return { device, grow };
}

function contentOf(path, sizeBytes) {
  const content = Buffer.alloc(sizeBytes);
  const fd = openSync(path, "r");
  for (let at = 0; at < sizeBytes; ) {
    const lengthBytes = Math.min(4 * MIB, sizeBytes - at);
    at += readSync(fd, content, at, lengthBytes, at);
  }
  closeSync(fd);
  return content;
}

async function fill(folder, name, mib) {
  await run(["sh", "-c", `head -c ${mib}M /dev/urandom > ${name}; sync -f .`], { cwd: folder });
}

for (const [type, { sizeBytes, make, grow }] of types) {
  const isLoop = type === "ext4";
  test(
    `${type} on a ${isLoop ? "loop device" : "file"} that grows: resized online, under a writer`,
    async (t) => {
      if (!canUpdateSize) skip("this kernel cannot resize ublk devices");
      note(`SEED=${SEED}`);
      await daemon(t);
      const disk = await original(t, sizeBytes, isLoop);
      const { device } = disk;
      const { front, detach } = await attach(t, device);
      await makeFileSystem(make, front);
      const { path, unmount } = await mount(t, front);
      await fill(path, "kept", 8);
      const checker = new Checker(t, path);
      await until("the writer writes", () => checker.rounds > 0);
      const before = await t.client.cbtInfo(device);
      const sums = await run(["md5sum", "kept"], { cwd: path });
      // A snapshot that was taken keeps its size, and the front waits for its end.
      const early = await takeSnapshot(t, [device]);
      const grownBytes = sizeBytes + 3 * STEP_BYTES;
      await disk.grow(grownBytes);
      const why = async () => (await t.client.status()).trackers[0].capacity_why;
      await until("status says that it waits", async () => (await why())?.includes(early.id));
      assert.equal([await sizeOf(front), await sizeOf(early.images[0])], [sizeBytes, sizeBytes]);
      const image = await mountImage(t, type, early.images[0], ["ro"]);
      await assertChecksums(sums, image.path);
      await image.unmount();
      await early.destroy();
      await untilSize(front, grownBytes);
      await run(grow({ front, path }));
      await fill(path, "behind", 2 * (STEP_BYTES / MIB));
      const after = await t.client.cbtInfo(device);
      assert.equal(
        [after.capacity_bytes, after.generation_reason],
        [grownBytes, "capacity_changed"],
      );
      assert.is.not(after.generation_id, before.generation_id);
      await assertIncremental(t, { type, device, path, grownBytes });
      await killServing(t);
      assert.is(await sizeOf(front), grownBytes);
      const { rounds } = checker;
      await until("the writer continues", () => checker.rounds > rounds);
      await checker.stop();
      note(`${checker.rounds} rounds of fio --verify`);
      const all = await checksums(path);
      await unmount();
      await checkFileSystem(type, front);
      await detach();
      await t.daemon.stop();
      if (!isLoop) return;
      await checkFileSystem(type, device);
      await assertChecksums(all, (await mount(t, device, ["ro"])).path);
    },
    LONG,
  );
}

/** Two snapshots of all of it: what differs between their images is in the diff. */
async function assertIncremental(t, { type, device, path, grownBytes }) {
  const first = await takeSnapshot(t, [device], { stores: ["memory:"] });
  assert.is(await sizeOf(first.images[0]), grownBytes);
  const full = contentOf(first.images[0], grownBytes);
  const { generation_id, changes_number } = await t.client.cbtInfo(device);
  await first.destroy();
  await fill(path, "later", 4);
  const sums = await run(["md5sum", "kept", "behind", "later"], { cwd: path });
  const second = await takeSnapshot(t, [device], { stores: ["memory:"] });
  const { ranges, ...diff } = await t.client.diff(device, changes_number);
  assert.is(diff.generation_id, generation_id);
  const told = [];
  for await (const range of ranges) told.push(range);
  const changed = changedBlocks(full, contentOf(second.images[0], grownBytes), 4096);
  assert.ok(changed.length > 0);
  assertCovered(changed, told.flat());
  const image = await mountImage(t, type, second.images[0], ["ro"]);
  await assertChecksums(sums, image.path);
  await image.unmount();
  await second.destroy();
}

for (const persistent of kinds) {
  const kind = persistent ? "a persistent tracker" : "a tracker";
  test(
    `${kind}, the daemon killed at each step of a growth, under a writer`,
    async (t) => {
      if (!canUpdateSize) skip("this kernel cannot resize ublk devices");
      note(`SEED=${SEED}`);
      const faults = new Faults(t);
      const more = persistent ? ["--persistent-dir", (await medium(t)).state] : [];
      await daemon(t, { faults, more });
      const { sizeBytes, make, grow } = TYPES.ext4;
      const disk = await original(t, sizeBytes, true);
      const { device } = disk;
      const { front } = await t.client.attach(device, { persistent });
      let isAttached = true;
      const detach = async () => {
        if (isAttached) await t.client.detach(device, { forget: persistent });
        isAttached = false;
      };
      t.defer(detach);
      await makeFileSystem(make, front);
      const { path, unmount } = await mount(t, front);
      const checker = new Checker(t, path);
      let bytes = sizeBytes;
      for (const point of GROWTH_FAULT_POINTS) {
        const before = await t.client.cbtInfo(device);
        const pid = await servingPid(t);
        await faults.arm(point);
        bytes += STEP_BYTES;
        await disk.grow(bytes);
        await faults.met();
        await successor(t, pid);
        await untilSize(front, bytes);
        await run(grow({ front }));
        await fill(path, point, 8);
        const after = await t.client.cbtInfo(device);
        assert.is.not(after.generation_id, before.generation_id, point);
        assert.is(after.generation_reason, "capacity_changed", point);
        const [{ persistence }] = (await t.client.status()).trackers;
        assert.is(persistence.state, persistent ? "on" : "off", point);
      }
      const { rounds } = checker;
      await until("the writer continues", () => checker.rounds > rounds);
      await checker.stop();
      note(`${checker.rounds} rounds of fio --verify`);
      const all = await checksums(path);
      await unmount();
      await checkFileSystem("ext4", front);
      await detach();
      await t.daemon.stop();
      await checkFileSystem("ext4", device);
      await assertChecksums(all, (await mount(t, device, ["ro"])).path);
    },
    LONG,
  );
}

/** Where a partition begins, and its length, in sectors. */
function extent(node) {
  const name = node.slice("/dev/".length);
  return ["start", "size"].map((what) =>
    Number(readFileSync(`/sys/class/block/${name}/${what}`, "utf8")),
  );
}

/** The last partition's file system, and how tables are made and changed. */
const PARTITIONED = [
  {
    type: "ext4",
    lastMib: 48,
    name: "MBR",
    make: partition,
    enlarge: partition,
  },
  ...enlargers().map(([name, enlarge]) => ({
    ...{ type: "xfs", lastMib: 320, name: `${name}, GPT` },
    ...{ make: partitionGpt, enlarge },
  })),
].filter((_, index) => isThorough || index % 2 === part);

for (const { type, lastMib, name, make, enlarge } of PARTITIONED) {
  test(
    `a partitioned disk that grows: its partitions stay as they are, and the last one is enlarged through the front (${type}, ${name})`,
    async (t) => {
      if (!canUpdateSize) skip("this kernel cannot resize ublk devices");
      note(`SEED=${SEED}`);
      await daemon(t);
      const sizesMib = [48, lastMib];
      const sizeBytes = (48 + lastMib + 2) * MIB;
      const types = ["ext4", type];
      const disk = await original(t, sizeBytes, true);
      const { device } = disk;
      await make(device, sizesMib);
      const { front, detach } = await attach(t, device);
      const parts = [1, 2].map((number) => `${front}p${number}`);
      const places = [];
      const checkers = [];
      for (const [index, part] of parts.entries()) {
        await makeFileSystem(TYPES[types[index]].make, part);
        const place = await mount(t, part);
        await fill(place.path, "kept", 4);
        places.push(place);
        checkers.push(new Checker(t, place.path));
      }
      const turn = async () => {
        const rounds = checkers.map((checker) => checker.rounds);
        const isOver = () => checkers.every((checker, index) => checker.rounds > rounds[index]);
        await until("both writers continue", isOver);
      };
      await turn();
      const before = parts.map(extent);
      const table = contentOf(front, MIB);
      const grownBytes = sizeBytes + 2 * STEP_BYTES;
      await disk.grow(grownBytes);
      await untilSize(front, grownBytes);
      await turn();
      assert.equal(parts.map(extent), before);
      assert.ok(contentOf(front, MIB).equals(table));
      await killServing(t);
      assert.equal(parts.map(extent), before);

      const enlargedMib = sizesMib[1] + (2 * STEP_BYTES) / MIB;
      await enlarge(front, [sizesMib[0], enlargedMib]);
      const [first, last] = parts.map(extent);
      assert.equal(first, before[0]);
      assert.equal(last, [before[1][0], (enlargedMib * MIB) / 512]);
      await run(TYPES[type].grow({ front: parts[1], path: places[1].path }));
      await fill(places[1].path, "behind", 2 * (STEP_BYTES / MIB));
      await turn();
      const sums = await run(["md5sum", "kept", "behind"], { cwd: places[1].path });
      const snapshot = await takeSnapshot(t, [device], { stores: ["memory:"] });
      const image = await mountImage(t, type, `${snapshot.images[0]}p2`, ["ro"]);
      await assertChecksums(sums, image.path);
      await image.unmount();
      await snapshot.destroy();
      for (const checker of checkers) await checker.stop();
      for (const { unmount } of places) await unmount();
      for (const [index, part] of parts.entries()) await checkFileSystem(types[index], part);
      await detach();
      await t.daemon.stop();
      await run(["partx", "--update", device]);
      for (const number of [1, 2]) await checkFileSystem(types[number - 1], `${device}p${number}`);
      const all = await mount(t, `${device}p2`, ["ro"]);
      await assertChecksums(sums, all.path);
    },
    LONG,
  );
}

test.run();
