// A driver in a process of its own, so that its memory and its death can be measured. Usage:
//   costs-run.mjs snapshots|recover|first-writes JSON; prints what it has measured as JSON.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Driver } from "@blksnap/driver";
import { pino } from "pino";
import { command, lastingName } from "./disks.mjs";
import { fioIops } from "./fio.mjs";

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const SECTOR_BYTES = 512;
const STAT_SECTORS_WRITTEN = 6;

setFlagsFromString("--expose-gc");
const collectGarbage = runInNewContext("gc");

/** Resident memory without that of the state directory's files, which are counted as such. */
function residentBytes() {
  collectGarbage();
  const status = readFileSync("/proc/self/status", "utf8");
  const of = (name) => Number(new RegExp(`${name}:\\s*(\\d+)`).exec(status)[1]) * KIB;
  return of("VmRSS") - of("RssShmem");
}

function bytesIn(folder) {
  const files = readdirSync(folder, { recursive: true }).map((name) => join(folder, name));
  return files.reduce((sum, file) => sum + statSync(file).blocks * SECTOR_BYTES, 0);
}

function bytesWritten(disk) {
  const fields = readFileSync(`/sys/class/block/${basename(disk)}/stat`, "utf8")
    .trim()
    .split(/ +/);
  return Number(fields[STAT_SECTORS_WRITTEN]) * SECTOR_BYTES;
}

async function timedMs(act) {
  const sinceMs = performance.now();
  const value = await act();
  return { ms: performance.now() - sinceMs, value };
}

function start({ state, persistent }) {
  const logger = pino({ level: "error" }, pino.destination({ fd: 2, sync: true }));
  const more = persistent === undefined ? {} : { persistentDirectory: persistent };
  return Driver.start({ logger, stateDirectory: state, ...more });
}

async function snapshots({ devices, store, state }) {
  const { ms: startMs, value: driver } = await timedMs(() => start({ state }));
  const emptyBytes = residentBytes();
  for (const device of devices) await driver.attach(device);
  const idleBytes = residentBytes() - emptyBytes;
  const idleStateBytes = bytesIn(state);
  const options = { devices, stores: [store], limitBytes: GIB };
  const { ms: createMs, value: made } = await timedMs(() => driver.snapshotCreate(options));
  const { ms: takeMs, value: taken } = await timedMs(() => driver.snapshotTake(made.id));
  const snapshotStateBytes = bytesIn(state) - idleStateBytes;
  const { ms: destroyMs } = await timedMs(() => driver.snapshotDestroy(made.id));
  return {
    startMs,
    idleMib: idleBytes / MIB,
    idleStateMib: idleStateBytes / MIB,
    createMs,
    takeMs,
    stallMs: taken.stall_us / 1000,
    snapshotStateMib: snapshotStateBytes / MIB,
    destroyMs,
  };
}

/** After a kill: until the fronts answer. */
async function recover({ devices, state }) {
  const { ms: recoverMs, value: driver } = await timedMs(async () => {
    const of = await start({ state });
    const { trackers } = await of.status();
    for (const { front } of trackers) {
      command("dd", `if=${front}`, "of=/dev/null", "bs=4096", "count=1", "iflag=direct");
    }
    return of;
  });
  for (const device of devices) await driver.detach(device);
  await driver.stop();
  return { recoverMs };
}

async function firstWrites({ disk, store, journalDisk, state, persistent, isPersistent }) {
  const driver = await start({ state, persistent });
  const { front } = await driver.attach(disk, { persistent: isPersistent });
  const stores = [lastingName(store, state)];
  const options = { devices: [disk], stores, limitBytes: GIB, persistent: isPersistent };
  const { id } = await driver.snapshotCreate(options);
  await driver.snapshotTake(id);
  const load = { rw: "randwrite", blockBytes: 4096, depth: 32, sizeBytes: 64 * MIB };
  const device = { path: front };
  // One-time allocations and compiled code are not part of the cost of a GiB.
  await fioIops(device, load);
  const before = [residentBytes(), bytesIn(state), bytesWritten(store), bytesWritten(journalDisk)];
  const sizeBytes = 256 * MIB;
  await fioIops(device, { ...load, sizeBytes, offsetBytes: load.sizeBytes });
  const after = [residentBytes(), bytesIn(state), bytesWritten(store), bytesWritten(journalDisk)];
  const [resident, stateBytes, toStore, toJournal] = after.map((value, at) => value - before[at]);
  await driver.snapshotDestroy(id);
  await driver.detach(disk, { forget: isPersistent });
  await driver.stop();
  return {
    residentMibPerGib: (resident / sizeBytes) * KIB,
    stateMibPerGib: (stateBytes / sizeBytes) * KIB,
    storePerByte: toStore / sizeBytes,
    journalPerByte: toJournal / sizeBytes,
  };
}

const [scenario, words] = process.argv.slice(2);
const measured = await { snapshots, recover, "first-writes": firstWrites }[scenario](
  JSON.parse(words),
);
process.stdout.write(`${JSON.stringify(measured)}\n`, () => {
  // Its fronts wait for the next process.
  if (scenario === "snapshots") process.kill(process.pid, "SIGKILL");
  process.exit(0);
});
