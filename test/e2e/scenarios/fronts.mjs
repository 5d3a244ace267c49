/** Fronts as block devices: their limits, their life, and their end under load. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { assertContent, writeDevice } from "../lib/device-file.mjs";
import { imageFile, loopDisk, nullDisk, ramDisks } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { fio, startLoad } from "../lib/fio.mjs";
import { seededRandom } from "../lib/random.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";
import { threadFlags } from "../lib/threads.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const random = seededRandom("fronts");

/** The block layer's view of a device, of what its users depend on. */
function limitsOf(device, names) {
  const folder = `/sys/block/${basename(device)}`;
  const read = (name) => readFileSync(join(folder, name), "utf8").trim();
  return Object.fromEntries(names.map((name) => [name, read(name)]));
}

const SIZES = ["size", "queue/logical_block_size", "queue/physical_block_size"];
/** Of users whose pages are passed on. */
const MEMORY = ["queue/dma_alignment"];
const MANNERS = ["queue/minimum_io_size", "queue/rotational", "queue/write_cache"];

/** Flush requests that have ended. */
function flushesOf(device) {
  return Number(limitsOf(device, ["stat"]).stat.split(/ +/)[15]);
}

const DISKS = {
  "loop device, sectors of 512 bytes": (t) => loopDisk(t, 4 * MIB + 512),
  "loop device, sectors of 4096 bytes": (t) => loopDisk(t, 4 * MIB + 4096, { sectorBytes: 4096 }),
  "null_blk with a cache and discard": (t) =>
    nullDisk(t, { sizeMib: 4, blockBytes: 4096, cacheMib: 1, discard: true }),
  "RAM disk": async (t) => (await ramDisks(t, 1, 4 * MIB))[0],
};

for (const [name, make] of Object.entries(DISKS)) {
  test(`front and image have the limits of their original: ${name}`, async (t) => {
    const device = await make(t);
    const { front } = await attach(t, device);
    const { images } = await takeSnapshot(t, [device]);
    const all = [...SIZES, ...MANNERS];
    assert.equal(limitsOf(front, all), limitsOf(device, all));
    const hasCache = limitsOf(device, MANNERS)["queue/write_cache"] === "write back";
    assert.equal(limitsOf(front, ["queue/fua"]), { "queue/fua": hasCache ? "1" : "0" });
    const { zero_copy: passesPages } = (await t.client.status()).trackers[0];
    if (passesPages) assert.equal(limitsOf(front, MEMORY), limitsOf(device, MEMORY));
    assert.equal(limitsOf(images[0], SIZES), limitsOf(device, SIZES));
    const discards = (path) =>
      Number(limitsOf(path, ["queue/discard_max_bytes"])["queue/discard_max_bytes"]);
    assert.is(discards(front) > 0, discards(device) > 0);
  });
}

test("a volume that moves to a disk with a write cache is flushed there", async (t) => {
  const disks = [await nullDisk(t, { sizeMib: 8 }), await nullDisk(t, { sizeMib: 8, cacheMib: 1 })];
  const name = t.name("blksnap-e2e-");
  const tableOf = (disk) => `0 ${(8 * MIB) / 512} linear ${disk} 0`;
  await run(["dmsetup", "create", name, "--table", tableOf(disks[0])]);
  t.defer(() => run(["dmsetup", "remove", "--retry", name]));
  const { front, detach } = await attach(t, `/dev/mapper/${name}`);
  await run(["dmsetup", "load", name, "--table", tableOf(disks[1])]);
  await run(["dmsetup", "resume", name]);
  const before = flushesOf(disks[1]);
  await run(["dd", "if=/dev/zero", `of=${front}`, "bs=4096", "count=1", "conv=fsync"]);
  assert.ok(flushesOf(disks[1]) > before, "the cache still has what was to be on the medium");
  await detach();
});

test("a durable write is one request of the front, and in the cache of no disk when it ends", async (t) => {
  const disk = await nullDisk(t, { sizeMib: 8, cacheMib: 1, fua: false });
  const { front } = await attach(t, disk);
  const [before, ownBefore] = [flushesOf(disk), flushesOf(front)];
  // Without direct I/O, or as pwritev2(2), the kernel flushes after it in any case.
  const durable = { ioengine: "io_uring", direct: 1, rw: "write", bs: "4k", sync: "dsync" };
  await fio(front, { ...durable, size: "32k" });
  assert.is(flushesOf(front), ownBefore, "the front was flushed for it");
  assert.is(flushesOf(disk), before + 8);
});

test("the smallest device can be tracked", async (t) => {
  const device = imageFile(t, 256 * 1024);
  const { front } = await attach(t, device);
  const before = random.bytes(256 * 1024);
  await writeDevice(t, front, before);
  const { images } = await takeSnapshot(t, [device]);
  await writeDevice(t, front, random.bytes(256 * 1024));
  await assertContent(t, images[0], before);
});

test("six devices can be in one snapshot", async (t) => {
  const disks = Array.from({ length: 6 }, () => ({
    device: imageFile(t, MIB),
    before: random.bytes(MIB),
  }));
  for (const disk of disks) {
    const { front } = await attach(t, disk.device);
    disk.front = front;
    await writeDevice(t, front, disk.before);
  }
  const devices = disks.map(({ device }) => device);
  const { images } = await takeSnapshot(t, devices, { stores: [storeFolder(t)] });
  const after = random.bytes(MIB);
  await Promise.all(disks.map(({ front }) => writeDevice(t, front, after)));
  for (const [index, { before }] of disks.entries()) await assertContent(t, images[index], before);
});

test("a device can be attached, mounted, unmounted and detached repeatedly", async (t) => {
  const device = await nullDisk(t, { sizeMib: 32 });
  for (let round = 0; round < 4; round++) {
    const { front, detach } = await attach(t, device);
    if (round === 0) await makeFileSystem("ext4", front);
    const mounted = await mount(t, front);
    const names = readdirSync(mounted.path).filter((name) => name.startsWith("round"));
    assert.is(names.length, round, names.join());
    writeFileSync(join(mounted.path, `round${round}`), "x");
    await mounted.unmount();
    await detach();
  }
  await checkFileSystem("ext4", device);
});

test("after a detach under load the load ends with an error, and the disk can be attached again", async (t) => {
  t.expectKernelMessages([
    /I\/O error,? (on )?(dev|device) ublkb\d+/,
    /Buffer I\/O error on dev ublkb/,
  ]);
  const device = await nullDisk(t, { sizeMib: 16 });
  for (const ioengine of ["io_uring", "psync"]) {
    const { front, detach } = await attach(t, device);
    const load = { ioengine, iodepth: 64, rw: "randwrite", bs: "4k", direct: 1 };
    const writing = await startLoad(t, front, load, { device });
    await detach();
    assert.is.not((await writing.end()).status, 0, "the load continued after detach");
    assert.equal((await t.client.status()).trackers, []);
  }
  const { front } = await attach(t, device);
  await run(["cmp", front, device]);
});

test("threads that serve devices never wait for writes to their own devices", async (t) => {
  const ioFlusher = 0x180000;
  const flags = threadFlags(t.daemon.pid);
  const flushers = flags.filter((each) => (each & ioFlusher) === ioFlusher);
  const { daemon } = await t.client.status();
  assert.ok(flushers.length > daemon.reactors, `${flushers.length} of ${flags.length} threads`);
});

test.run();
