// First writes under a snapshot, over NBD on both sides: a daemon of `--frontend nbd`, and QEMU's storage daemon with
// copy-before-write. Original and store are files in memory, fio is the client of both, and each block is written once.
// QEMU copies 64 KiB at a time: of random writes only the first into each of those is one, unless each has its own.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BlksnapClient } from "../../packages/client/dist/index.js";
import { randomFile } from "./files.mjs";

const MIB = 2 ** 20;
const MEASURED_BYTES = 512 * MIB;
/** Behind them: code is compiled in their writes, and memory is made. */
const WARM_BYTES = 128 * MIB;
const DISK_BYTES = MEASURED_BYTES + WARM_BYTES;
const WRITE_BYTES = 4096;
const QEMU_CLUSTER_BYTES = 65_536;
/** All have as many writes. */
const LOADS = [
  { name: "4 KiB, each 64 KiB once, QD 32", rw: strided(), depth: 32 },
  { name: "4 KiB, each 64 KiB once, QD 1", rw: strided(), depth: 1 },
  { name: "4 KiB at random, QD 32", rw: "randwrite", depth: 32 },
  { name: "4 KiB at random, QD 1", rw: "randwrite", depth: 1 },
];
const WAIT_MS = 10;
const START_MS_MAX = 120_000;
const NAMES = ["blksnap", "qemu copy-before-write"];

function strided() {
  return `write:${QEMU_CLUSTER_BYTES - WRITE_BYTES}`;
}

function started(command, words, socket) {
  const server = spawn(command, words, { stdio: ["ignore", "ignore", "inherit"] });
  const ended = new Promise((done) => server.once("exit", done));
  const stop = () => {
    server.kill();
    return ended;
  };
  const serves = async () => {
    for (let waitedMs = 0; !existsSync(socket); waitedMs += WAIT_MS) {
      if (server.exitCode !== null || waitedMs > START_MS_MAX) {
        await stop();
        throw new Error(`${command} does not serve ${socket}`);
      }
      await sleep(WAIT_MS);
    }
  };
  return { stop, serves };
}

/** Answers the address that is written to, and how it ends. */
async function blksnap(folder, disk) {
  for (const name of ["state", "kept", "store"]) mkdirSync(join(folder, name));
  const socketPath = join(folder, "socket");
  const words = [
    ...["node_modules/.bin/blksnapd", "--frontend=nbd", "--log-level=warn"],
    ...[`--socket=${socketPath}`, `--state-dir=${join(folder, "state")}`],
    `--persistent-dir=${join(folder, "kept")}`,
  ];
  const { stop, serves } = started(process.execPath, words, socketPath);
  await serves();
  const client = new BlksnapClient({ socketPath });
  const { front } = await client.attach(disk);
  const stores = [join(folder, "store")];
  const { id } = await client.snapshotCreate({
    devices: [disk],
    stores,
    limitBytes: 2 * DISK_BYTES,
  });
  await client.snapshotTake(id);
  return { uri: front, stop };
}

async function qemu(folder, disk) {
  const [store, socket] = ["store", "socket"].map((name) => join(folder, name));
  writeFileSync(store, "");
  spawnSync("truncate", ["--size", String(DISK_BYTES), store]);
  const file = (name, path) => [
    "--blockdev",
    `driver=file,node-name=${name},filename=${path},cache.direct=off`,
  ];
  const words = [
    ...file("disk", disk),
    ...file("store", store),
    ...["--blockdev", "driver=copy-before-write,node-name=front,file=disk,target=store"],
    ...["--nbd-server", `addr.type=unix,addr.path=${socket},max-connections=0`],
    ...["--export", "type=nbd,id=front,node-name=front,name=front,writable=on"],
  ];
  const { stop, serves } = started("qemu-storage-daemon", words, socket);
  await serves();
  return { uri: `nbd+unix:///front?socket=${socket}`, stop };
}

function writesPerSecond(uri, { rw, depth }, offsetBytes, sizeBytes) {
  const writes = sizeBytes / QEMU_CLUSTER_BYTES;
  const run = spawnSync(
    "fio",
    [
      ...["--name=bench", "--ioengine=nbd", `--uri=${uri}`, `--rw=${rw}`],
      ...[`--bs=${WRITE_BYTES}`, `--iodepth=${depth}`, `--size=${sizeBytes}`],
      ...[`--offset=${offsetBytes}`, `--number_ios=${writes}`],
      ...["--randrepeat=1", "--output-format=json"],
    ],
    { encoding: "utf8", maxBuffer: 2 ** 26 },
  );
  if (run.status !== 0) throw new Error(`fio on ${uri}: ${run.stderr || run.error}`);
  const [job] = JSON.parse(run.stdout.slice(run.stdout.indexOf("{"))).jobs;
  if (job.error !== 0 || job.write.total_ios !== writes)
    throw new Error(`fio on ${uri}: error ${job.error}, ${job.write.total_ios} writes`);
  return job.write.iops;
}

async function once(make, load) {
  const folder = mkdtempSync("/dev/shm/blksnap-bench-");
  try {
    const disk = join(folder, "disk");
    writeFileSync(disk, randomFile(DISK_BYTES));
    const { uri, stop } = await make(folder, disk);
    try {
      writesPerSecond(uri, load, MEASURED_BYTES, WARM_BYTES);
      return writesPerSecond(uri, load, 0, MEASURED_BYTES);
    } finally {
      await stop();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A group of results as report.mjs shows it. @returns {Promise<object>} */
export async function measureNbdFirstWrite(rounds) {
  const loads = LOADS.map(({ name }) => ({
    name,
    values: Object.fromEntries(NAMES.map((name) => [name, []])),
  }));
  for (let round = 0; round < rounds; round++) {
    for (const [at, load] of LOADS.entries()) {
      for (const [index, make] of [blksnap, qemu].entries()) {
        loads[at].values[NAMES[index]].push(await once(make, load));
      }
    }
  }
  return { series: "nbd-first-write", unit: "IOPS", reference: NAMES[1], loads };
}
