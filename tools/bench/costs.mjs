// What is not a load of fio: snapshots by size and number of devices, recovery, memory, bytes written, fstrim.
import { execFile } from "node:child_process";
import { mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { makeCandidate } from "./candidates.mjs";
import { command, nullDisk } from "./disks.mjs";

const PROGRAM = fileURLToPath(new URL("costs-run.mjs", import.meta.url));
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;
const COUNTED_DISK_BYTES = 512 * MIB;
const REMOVED_BYTES = 128 * MIB;

const run = promisify(execFile);

/** The driver's process beside this one; "snapshots" ends by a kill. */
async function inProcess(scenario, options) {
  const words = [PROGRAM, scenario, JSON.stringify(options)];
  const { stdout, stderr } = await run(process.execPath, words).catch((error) => {
    if (error.signal === "SIGKILL" && error.stdout !== "") return error;
    throw error;
  });
  process.stderr.write(stderr);
  return JSON.parse(stdout);
}

/** By name of the load, of an object with other names. */
export function named(loads, values) {
  return Object.fromEntries(loads.map(({ name, key }) => [name, values[key]]));
}

const FLEETS = {
  "1 × 1 GiB": { count: 1, sizeBytes: GIB },
  "8 × 1 GiB": { count: 8, sizeBytes: GIB },
  "1 × 64 TiB": { count: 1, sizeBytes: 64 * TIB },
  "8 × 64 TiB": { count: 8, sizeBytes: 64 * TIB },
};
const FLEET_LOADS = [
  { name: "driver starts, nothing to recover, ms", key: "startMs" },
  { name: "tracked and idle, MiB resident", key: "idleMib" },
  { name: "tracked and idle, MiB in the state directory", key: "idleStateMib" },
  { name: "snapshot created, ms", key: "createMs" },
  { name: "in a snapshot, MiB more in the state directory", key: "snapshotStateMib" },
  { name: "take, ms", key: "takeMs" },
  { name: "take: a writer stands, ms", key: "stallMs" },
  { name: "snapshot destroyed, ms", key: "destroyMs" },
  { name: "after a kill: fronts answer, ms", key: "recoverMs" },
];

/** Devices of files that are all holes. */
async function measureFleet(candidate, { folder, store }) {
  const { count, sizeBytes } = FLEETS[candidate];
  const work = join(folder, "fleet");
  const state = join(work, "state");
  mkdirSync(state, { recursive: true });
  const devices = [];
  try {
    for (let index = 0; index < count; index++) {
      const file = join(work, `disk-${index}`);
      writeFileSync(file, "");
      truncateSync(file, sizeBytes);
      devices.push(command("losetup", "--find", "--show", file));
    }
    const alive = await inProcess("snapshots", { devices, store, state });
    const recovered = await inProcess("recover", { devices, state });
    return named(FLEET_LOADS, { ...alive, ...recovered });
  } finally {
    for (const device of devices) command("losetup", "--detach", device);
    rmSync(work, { recursive: true });
  }
}

const WRITTEN_LOADS = [
  { name: "first writes: bytes to the store for each byte", key: "storePerByte" },
  { name: "first writes: bytes to the journal's disk for each byte", key: "journalPerByte" },
  { name: "first writes: MiB resident for each GiB", key: "residentMibPerGib" },
  { name: "first writes: MiB in the state directory for each GiB", key: "stateMibPerGib" },
];
let counted;

/** On disks that count, whatever kind the others are. */
async function countedDisks(folder) {
  const sizeBytes = COUNTED_DISK_BYTES;
  const disk = await nullDisk("bench-counted", { sizeBytes });
  const store = await nullDisk("bench-counted-store", { sizeBytes });
  const journalDisk = await nullDisk("bench-journal", { sizeBytes });
  command("mkfs.ext4", "-q", journalDisk);
  return { disk, store, journalDisk, mount: join(folder, "journal") };
}

async function measureWritten(candidate, { folder }) {
  counted ??= await countedDisks(folder);
  const { mount, ...disks } = counted;
  const state = join(folder, "counted-state");
  for (const path of [mount, state]) mkdirSync(path);
  command("mount", disks.journalDisk, mount);
  try {
    const isPersistent = candidate === "persistent";
    const options = { ...disks, state, persistent: join(mount, "blksnap"), isPersistent };
    return named(WRITTEN_LOADS, await inProcess("first-writes", options));
  } finally {
    command("umount", mount);
    for (const path of [mount, state]) rmSync(path, { recursive: true });
  }
}

const TRIM_LOAD = `fstrim of ${REMOVED_BYTES / MIB} MiB of removed files, ms`;

async function measureTrim(candidate, { disk, folder }) {
  const mount = join(folder, "trim");
  mkdirSync(mount);
  command("mkfs.ext4", "-q", "-F", "-E", "nodiscard", disk, `${(2 * REMOVED_BYTES) / MIB}M`);
  command("mount", disk, mount);
  const count = `count=${REMOVED_BYTES / MIB}`;
  command("dd", "if=/dev/urandom", `of=${mount}/file`, "bs=1M", count, "conv=fsync");
  rmSync(join(mount, "file"));
  command("umount", mount);
  const made = await makeCandidate(candidate, 2 * REMOVED_BYTES);
  try {
    command("mount", made.self.path, mount);
    const sinceMs = performance.now();
    try {
      await run("fstrim", [mount]);
      return { [TRIM_LOAD]: performance.now() - sinceMs };
    } finally {
      await run("umount", [mount]);
    }
  } finally {
    await made.end();
    rmSync(mount, { recursive: true });
  }
}

function group(candidates, loads, measure) {
  return { candidates, reference: candidates[0], loads, measure, unit: "each as it says" };
}

export const COST_GROUPS = [
  group(Object.keys(FLEETS), FLEET_LOADS, measureFleet),
  group(["not persistent", "persistent"], WRITTEN_LOADS, measureWritten),
  group(["raw disk", "front", "front, snapshot"], [{ name: TRIM_LOAD }], measureTrim),
];
