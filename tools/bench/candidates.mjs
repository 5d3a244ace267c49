// What is measured: ours and its peers, each over the same disk, and with the same second one for old data.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { Driver } from "@blksnap/driver";
import { fileTarget, UblkDevice } from "@blksnap/ublk";
import { pino } from "pino";
import { command, lastingName, makeDisks, nullDisk, removeDisks } from "./disks.mjs";
import { PEERS, withoutZeroCopy } from "./peers.mjs";

const MIB = 2 ** 20;
/** Of persistent trackers: a disk that takes this long for each request. */
const STATE_DISK_BYTES = 128 * MIB;
const STATE_LATENCY_US = 100;
/** What the loads that need the most take of the store: chunks of 64 KiB for writes of 4 KiB. */
const TOUCHED_BYTES = 2048 * MIB;

/** Of the run: kind, paths and size of the disks, and a folder. */
const bench = { kind: "", disk: "", store: "", diskBytes: 0, folder: "", emptyStore };
let driver;
let isStateDiskMade = false;

function startDriver(options = {}) {
  return Driver.start({ logger: pino({ level: "error" }), ...options });
}

/** Makes the disks; answers what of the machine a candidate may use. */
export async function openBench({ kind, diskBytes, filledBytes }) {
  Object.assign(bench, await makeDisks(kind, diskBytes), { kind, diskBytes });
  bench.folder = mkdtempSync(join(tmpdir(), "blksnap-bench-"));
  const count = `count=${filledBytes / MIB}`;
  command("dd", "if=/dev/urandom", `of=${bench.disk}`, "bs=1M", count, "oflag=direct");
  touchMemory();
  return bench;
}

export async function closeBench() {
  await driver?.stop();
  driver = undefined;
  if (isStateDiskMade) command("umount", join(bench.folder, "state"));
  rmSync(bench.folder, { recursive: true });
  removeDisks();
}

async function trackerDriver() {
  driver ??= await startDriver();
  return driver;
}

async function front() {
  const of = await trackerDriver();
  const { front: path } = await of.attach(bench.disk);
  return { path, end: () => of.detach(bench.disk) };
}

/** With zero copy switched off. */
async function copyingFront() {
  await driver?.stop();
  driver = undefined;
  const of = await startDriver({ zeroCopy: "off" });
  const { front: path } = await of.attach(bench.disk);
  const end = async () => {
    await of.detach(bench.disk);
    await of.stop();
  };
  return { path, end };
}

/**
 * A virtual machine's memory comes from its host page by page at first use, which would dominate the measurement. So
 * the part of a store that will be used is touched once before.
 */
function touchMemory() {
  const count = `count=${Math.floor(Math.min(TOUCHED_BYTES, freemem() / 4) / MIB)}`;
  command("dd", "if=/dev/zero", `of=${bench.store}`, "bs=1M", count, "oflag=direct");
  emptyStore();
}

/** Nothing of an earlier snapshot is left in the store, nor memory of it. */
function emptyStore() {
  command("blkdiscard", "--force", bench.store);
  command("dd", "if=/dev/zero", `of=${bench.store}`, "bs=1M", "count=1", "oflag=direct");
}

/** @param options of attach; a persistent front has a persistent snapshot */
async function takeAt(of, options) {
  emptyStore();
  const { disk, store, diskBytes } = bench;
  const { front: path } = await of.attach(disk, options);
  const stores = [lastingName(store, bench.folder)];
  const wish = { devices: [disk], stores, limitBytes: diskBytes, ...options };
  const take = async () => {
    const { id } = await of.snapshotCreate(wish);
    await of.snapshotTake(id);
    return id;
  };
  const member = async (id) => (await of.snapshotStatus(id)).devices[0];
  let id = await take();
  const { image } = await member(id);
  const destroy = async () => {
    const { error_code: code, copied_bytes: copiedBytes } = await member(id);
    await of.snapshotDestroy(id);
    if (code !== 0) throw new Error(`the snapshot was lost while it was measured: ${code}`);
    return copiedBytes;
  };
  const next = async () => {
    const { changes_number: since } = await of.cbtInfo(disk);
    const copiedBytes = await destroy();
    id = await take();
    const { changed_bytes: changedBytes } = await of.diff(disk, since);
    return { copiedBytes, changedBytes };
  };
  return { path, imagePath: image, next, destroy };
}

async function frontWithSnapshot() {
  const of = await trackerDriver();
  const { destroy, ...taken } = await takeAt(of, {});
  const end = async () => {
    await destroy();
    await of.detach(bench.disk);
  };
  return { ...taken, end };
}

/** Its state is on a slow disk. */
async function stateDiskDriver() {
  const mount = join(bench.folder, "state");
  if (!isStateDiskMade) {
    const latencyUs = STATE_LATENCY_US;
    const state = await nullDisk("bench-state", { sizeBytes: STATE_DISK_BYTES, latencyUs });
    command("mkfs.ext4", "-q", state);
    mkdirSync(mount);
    command("mount", state, mount);
    isStateDiskMade = true;
  }
  await driver?.stop();
  driver = undefined;
  driver = await startDriver({ persistentDirectory: join(mount, "blksnap") });
  return driver;
}

async function endStateDiskDriver() {
  await driver.detach(bench.disk, { forget: true });
  await driver.stop();
  driver = undefined;
}

function frontWithStateDisk(options) {
  return async () => {
    const of = await stateDiskDriver();
    const { front: path } = await of.attach(bench.disk, options);
    return { path, end: endStateDiskDriver };
  };
}

function snapshotWithStateDisk(options) {
  return async () => {
    const of = await stateDiskDriver();
    const { destroy, ...taken } = await takeAt(of, options);
    const end = async () => {
      await destroy();
      await endStateDiskDriver();
    };
    return { ...taken, end };
  };
}

async function fileTargetDevice() {
  const target = fileTarget({ path: bench.disk });
  const device = await UblkDevice.start({ target, zeroCopy: true });
  return { path: device.path, end: () => device.stop() };
}

const CANDIDATES = {
  ...PEERS,
  "file target": { make: fileTargetDevice },
  front: { make: front },
  "front, copies": { make: copyingFront, missing: withoutZeroCopy },
  "front, snapshot": { make: frontWithSnapshot },
  "front, state disk": { make: frontWithStateDisk({}) },
  "persistent front": { make: frontWithStateDisk({ persistent: true }) },
  "snapshot, state disk": { make: snapshotWithStateDisk({}) },
  "persistent snapshot": { make: snapshotWithStateDisk({ persistent: true }) },
};

/** Why the candidate cannot be measured on this machine, or undefined. */
export async function whyNot(name) {
  return await CANDIDATES[name].missing?.();
}

/**
 * Makes it for loads that write to the first `loadBytes`. Answers what fioIops() takes of it, of its image,
 * `next`, which replaces its snapshot by a new one and reports what it knows of the last, and `end`.
 */
export async function makeCandidate(name, loadBytes) {
  const { path, nbdUri, imagePath, imageNbdUri, next, end } = await CANDIDATES[name].make({
    ...bench,
    loadBytes,
  });
  const self = { path, nbdUri };
  const hasImage = imagePath !== undefined || imageNbdUri !== undefined;
  const image = hasImage ? { path: imagePath, nbdUri: imageNbdUri } : self;
  return { self, image, next, end };
}
