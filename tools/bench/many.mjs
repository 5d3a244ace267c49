// Several devices over one reactor or two: each has a disk and a user of its own, all at once. The rates are sums.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Driver } from "@blksnap/driver";
import { pino } from "pino";
import { named } from "./costs.mjs";
import { DISK_KINDS, nullDisk } from "./disks.mjs";
import { fioJobs, timedJob } from "./fio.mjs";

const MIB = 2 ** 20;
const DISK_BYTES = 64 * MIB;
const DEPTH = 8;
const DEVICES_MAX = 8;
const WARM_UP_S = 1;

const CANDIDATES = Object.fromEntries(
  [1, 2, 4, DEVICES_MAX].flatMap((devices) =>
    [1, 2].map((reactors) => [`devices ${devices}, reactors ${reactors}`, { devices, reactors }]),
  ),
);
const all = (what) => `all devices: 4 KiB random ${what}, QD ${DEPTH} each`;
const LOADS = [
  { name: all("read"), key: "reads" },
  { name: all("write"), key: "writes" },
  { name: all("write under a snapshot"), key: "snapshotWrites" },
  { name: all("read of images"), key: "imageReads" },
];

let disks;

async function madeDisks(latencyUs) {
  const made = [];
  for (let index = 0; index <= DEVICES_MAX; index++) {
    // The last one is the store.
    const sizeBytes = index < DEVICES_MAX ? DISK_BYTES : DEVICES_MAX * 2 * DISK_BYTES;
    made.push(await nullDisk(`bench-many-${index}`, { sizeBytes, latencyUs }));
  }
  return made;
}

/** fio with a job for each path at once; answers their I/Os per second together. */
async function together(paths, rw, runtimeS) {
  const load = { rw, blockBytes: 4096, depth: DEPTH, sizeBytes: DISK_BYTES, runtimeS };
  const jobs = await fioJobs(paths.flatMap((path) => timedJob({ name: "many", path, ...load })));
  const failed = jobs.find(({ error }) => error !== 0);
  if (failed !== undefined) throw new Error(`fio on many devices: error ${failed.error}`);
  return jobs.reduce((sum, { read, write }) => sum + read.iops + write.iops, 0);
}

async function measureDriver(driver, originals, store, runtimeS) {
  const fronts = [];
  for (const path of originals) fronts.push((await driver.attach(path)).front);
  const values = {};
  for (const [key, rw] of [
    ["reads", "randread"],
    ["writes", "randwrite"],
  ]) {
    await together(fronts, rw, WARM_UP_S);
    values[key] = await together(fronts, rw, runtimeS);
  }
  const wish = { devices: originals, stores: [store], limitBytes: DEVICES_MAX * 2 * DISK_BYTES };
  const { id } = await driver.snapshotCreate(wish);
  await driver.snapshotTake(id);
  values.snapshotWrites = await together(fronts, "randwrite", runtimeS);
  const { devices } = await driver.snapshotStatus(id);
  const images = devices.map(({ image }) => image);
  await together(images, "randread", WARM_UP_S);
  values.imageReads = await together(images, "randread", runtimeS);
  await driver.snapshotDestroy(id);
  for (const path of originals) await driver.detach(path);
  return named(LOADS, values);
}

async function measureMany(candidate, { kind, runtimeS }) {
  const { devices, reactors } = CANDIDATES[candidate];
  disks ??= await madeDisks(DISK_KINDS[kind].latencyUs);
  const folder = mkdtempSync(join(tmpdir(), "blksnap-many-"));
  const logger = pino({ level: "error" });
  const driver = await Driver.start({ logger, reactors, stateDirectory: folder });
  try {
    return await measureDriver(driver, disks.slice(0, devices), disks[DEVICES_MAX], runtimeS);
  } finally {
    await driver.stop();
    rmSync(folder, { recursive: true });
  }
}

export const MANY_GROUP = {
  candidates: Object.keys(CANDIDATES),
  reference: Object.keys(CANDIDATES)[0],
  loads: LOADS,
  measure: measureMany,
};
