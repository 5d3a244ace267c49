// What is measured, each over the same RAM disk, and with the same second one for old data.
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Driver } from "@blksnap/driver";
import { fileTarget, UblkDevice } from "@blksnap/ublk";
import { pino } from "pino";

const DISK = "/dev/ram0";
const STORE = "/dev/ram1";
const MIB = 2 ** 20;
const SECTOR_BYTES = 512;
/** Of persistent trackers: a disk that takes this long for each request. */
const STATE_DISK = "/dev/nullb0";
const STATE_DISK_MIB = 128;
const STATE_LATENCY_US = 100;

let diskBytes = 0;
let folder = "";
let driver;
let isStateDiskMade = false;

function command(name, ...args) {
  const run = spawnSync(name, args, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${name} ${args.join(" ")} failed: ${run.stderr}`);
  return run.stdout.trim();
}

function startDriver(options = {}) {
  return Driver.start({ logger: pino({ level: "error" }), ...options });
}

/** Makes the disks. */
export async function openBench(sizes) {
  diskBytes = sizes.diskBytes;
  folder = mkdtempSync(join(tmpdir(), "blksnap-bench-"));
  command("modprobe", "brd", "rd_nr=2", `rd_size=${diskBytes / 1024}`, "max_part=0");
  const count = `count=${sizes.filledBytes / MIB}`;
  command("dd", "if=/dev/urandom", `of=${DISK}`, "bs=1M", count, "oflag=direct");
}

export async function closeBench() {
  await driver?.stop();
  driver = undefined;
  if (isStateDiskMade) command("umount", join(folder, "state"));
  rmSync(folder, { recursive: true });
  command("modprobe", "-r", "brd");
}

async function trackerDriver() {
  driver ??= await startDriver();
  return driver;
}

async function front() {
  const of = await trackerDriver();
  const { front: path } = await of.attach(DISK);
  return { path, end: () => of.detach(DISK) };
}

/** Nothing of an earlier snapshot is left in the store, nor memory behind it. */
function emptyStore() {
  command("blkdiscard", "--force", STORE);
  command("dd", "if=/dev/zero", `of=${STORE}`, "bs=1M", "count=1", "oflag=direct");
}

async function frontWithSnapshot() {
  emptyStore();
  const of = await trackerDriver();
  const { front: path } = await of.attach(DISK);
  const options = { devices: [DISK], stores: [STORE], limitBytes: diskBytes };
  const { id } = await of.snapshotCreate(options);
  await of.snapshotTake(id);
  const { snapshots } = await of.status();
  const [{ image }] = snapshots.find((one) => one.id === id).devices;
  const end = async () => {
    const { error_code: code } = (await of.status()).trackers[0];
    await of.snapshotDestroy(id);
    await of.detach(DISK);
    if (code !== 0) throw new Error(`the snapshot was lost while it was measured: ${code}`);
  };
  return { path, imagePath: image, end };
}

/** @param kind P: its table is kept on the store, N: in memory */
function dmSnapshot(kind, chunkSectors) {
  return async () => {
    emptyStore();
    const sectors = diskBytes / SECTOR_BYTES;
    const tables = {
      "bench-origin": `0 ${sectors} snapshot-origin ${DISK}`,
      "bench-image": `0 ${sectors} snapshot ${DISK} ${STORE} ${kind} ${chunkSectors}`,
    };
    for (const [name, table] of Object.entries(tables)) {
      command("dmsetup", "create", name, "--table", table);
    }
    const end = async () => {
      const status = command("dmsetup", "status", "bench-image");
      for (const name of Object.keys(tables)) command("dmsetup", "remove", "--retry", name);
      if (/Invalid|Overflow/.test(status)) throw new Error(`dm-snapshot was lost: ${status}`);
    };
    return { path: "/dev/mapper/bench-origin", imagePath: "/dev/mapper/bench-image", end };
  };
}

async function loop(...options) {
  const path = command("losetup", "--find", "--show", ...options, DISK);
  return { path, end: async () => void command("losetup", "--detach", path) };
}

/** A driver of its own: its state lies on a slow disk. */
function frontWithStateDisk(options) {
  return async () => {
    const mount = join(folder, "state");
    if (!isStateDiskMade) {
      const latency = ["irqmode=2", `completion_nsec=${STATE_LATENCY_US * 1000}`];
      command("modprobe", "null_blk", "nr_devices=1", "memory_backed=1", "gb=1", ...latency);
      command("mkfs.ext4", "-q", STATE_DISK, `${STATE_DISK_MIB}M`);
      mkdirSync(mount);
      command("mount", STATE_DISK, mount);
      isStateDiskMade = true;
    }
    await driver?.stop();
    driver = undefined;
    const of = await startDriver({ persistentDirectory: join(mount, "blksnap") });
    const { front: path } = await of.attach(DISK, options);
    const end = async () => {
      await of.detach(DISK, { forget: true });
      await of.stop();
    };
    return { path, end };
  };
}

/** By name: makes it, and answers its paths and how it ends. */
export const CANDIDATES = {
  "raw disk": async () => ({ path: DISK, end: async () => undefined }),
  loop: () => loop(),
  "loop direct": () => loop("--direct-io=on"),
  "file target": async () => {
    const device = await UblkDevice.start({ target: fileTarget({ path: DISK }) });
    return { path: device.path, end: () => device.stop() };
  },
  front,
  "front, snapshot": frontWithSnapshot,
  "dm-snapshot P 8": dmSnapshot("P", 8),
  "dm-snapshot P 128": dmSnapshot("P", 128),
  "front, state disk": frontWithStateDisk({}),
  "persistent front": frontWithStateDisk({ persistent: true }),
};
