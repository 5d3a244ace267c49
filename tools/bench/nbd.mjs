// NBD over the unix socket of one machine: our server, and common alternatives. All serve
// one file in memory: what is measured is the server, and the client that is the same.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { randomFile } from "./files.mjs";

const FILE_BYTES = 2 ** 29;
const SERVE = fileURLToPath(new URL("../../packages/nbd/examples/serve.mjs", import.meta.url));
const COPY_REQUEST_BYTES = 2 ** 18;
const LOADS = [
  { name: "nbdcopy, 512 MiB", unit: "MB/s" },
  { name: "4 KiB random read, QD 32", unit: "IOPS", rw: "randread", blockBytes: 4096, depth: 32 },
  { name: "4 KiB random read, QD 1", unit: "IOPS", rw: "randread", blockBytes: 4096, depth: 1 },
  {
    name: "256 KiB sequential read, QD 8",
    unit: "IOPS",
    rw: "read",
    blockBytes: 2 ** 18,
    depth: 8,
  },
];
const SERVERS = {
  blksnap: (socket, file) => [process.execPath, SERVE, socket, file],
  "qemu-nbd": (socket, file) => [
    ...["qemu-nbd", "--persistent", "--read-only", "--format=raw", "--export-name=disk"],
    ...["--shared=16", `--socket=${socket}`, file],
  ],
  nbdkit: (socket, file) => ["nbdkit", "--foreground", "--readonly", "-U", socket, "file", file],
};
const WAIT_MS = 10;
const START_MS_MAX = 60_000;
/** USER_HZ is 100. */
const TICK_US = 10_000;

function has(program) {
  return spawnSync("sh", ["-c", 'command -v "$1"', "sh", program]).status === 0;
}

/** Those that this machine has; for the others it says how to install them. */
function candidates() {
  const missing = Object.keys(SERVERS).filter((name) => name !== "blksnap" && !has(name));
  for (const name of missing) process.stderr.write(`bench: nbd: no ${name}: left out\n`);
  return Object.keys(SERVERS).filter((name) => !missing.includes(name));
}

function output(command, args) {
  const run = spawnSync(command, args, { encoding: "utf8", maxBuffer: 2 ** 26 });
  if (run.status !== 0) throw new Error(`${command} failed: ${run.stderr || run.error}`);
  return run.stdout;
}

/** Its value in its unit, and of how many requests. */
function copy(uri) {
  const started = performance.now();
  output("nbdcopy", [uri, "null:"]);
  const value = FILE_BYTES / 1e6 / ((performance.now() - started) / 1000);
  return { value, requests: FILE_BYTES / COPY_REQUEST_BYTES };
}

function read(uri, { rw, blockBytes, depth }, runtimeS) {
  const text = output("fio", [
    ...["--name=bench", "--ioengine=nbd", `--uri=${uri}`, `--rw=${rw}`, `--bs=${blockBytes}`],
    ...[`--iodepth=${depth}`, `--size=${FILE_BYTES}`, "--time_based", `--runtime=${runtimeS}`],
    ...["--randrepeat=1", "--norandommap", "--output-format=json"],
  ]);
  const [job] = JSON.parse(text.slice(text.indexOf("{"))).jobs;
  if (job.error !== 0 || job.read.total_ios === 0) throw new Error(`fio on ${uri}: ${job.error}`);
  return { value: job.read.iops, requests: job.read.total_ios };
}

/** Of all threads of a process so far, µs. */
function cpuUs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}

/** Starts a server of the file. @returns {Promise<{uri: string, pid: number, stop: () => Promise<void>}>} */
async function start(name, folder, file) {
  const socket = join(folder, `${name}.sock`);
  const [command, ...args] = SERVERS[name](socket, file);
  const server = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"] });
  const ended = new Promise((done) => server.once("exit", done));
  const stop = () => {
    server.kill();
    return ended;
  };
  for (let waitedMs = 0; !existsSync(socket); waitedMs += WAIT_MS) {
    if (server.exitCode !== null || waitedMs > START_MS_MAX) {
      await stop();
      throw new Error(`${name} does not serve ${socket}`);
    }
    await sleep(WAIT_MS);
  }
  const exported = name === "nbdkit" ? "" : "disk";
  return { uri: `nbd+unix:///${exported}?socket=${socket}`, pid: server.pid, stop };
}

/** The candidates' values, and their CPU, of each load. */
async function measureRounds(servers, rounds, runtimeS) {
  const names = [...servers.keys()];
  const empty = () => Object.fromEntries(names.map((name) => [name, []]));
  const results = LOADS.map(({ name, unit }) => ({ name, unit, values: empty(), cpu: empty() }));
  // Round 0 is not counted: code is compiled in it, and pools of threads are filled.
  for (let round = 0; round <= rounds; round++) {
    for (const [name, { uri, pid }] of servers) {
      for (const [at, load] of LOADS.entries()) {
        const before = cpuUs(pid);
        const { value, requests } = load.rw === undefined ? copy(uri) : read(uri, load, runtimeS);
        if (round === 0) continue;
        results[at].values[name].push(value);
        results[at].cpu[name].push((cpuUs(pid) - before) / requests);
      }
    }
  }
  return results;
}

/** Groups of results as report.mjs shows them. @returns {Promise<object[]>} */
export async function measureNbd(rounds, runtimeS) {
  for (const program of ["nbdcopy", "fio"]) {
    if (!has(program)) throw new Error(`nbd needs ${program}: install libnbd-bin and fio`);
  }
  const names = candidates();
  const folder = mkdtempSync("/dev/shm/blksnap-bench-");
  const file = join(folder, "disk");
  const servers = new Map();
  let results = [];
  try {
    writeFileSync(file, randomFile(FILE_BYTES));
    for (const name of names) servers.set(name, await start(name, folder, file));
    results = await measureRounds(servers, rounds, runtimeS);
  } finally {
    for (const { stop } of servers.values()) await stop();
    rmSync(folder, { recursive: true });
  }
  const group = { series: "nbd", reference: names.includes("nbdkit") ? "nbdkit" : names.at(-1) };
  const of = (unit) => results.filter((load) => load.unit === unit);
  const cpu = results.map((load) => ({ name: load.name, values: load.cpu }));
  return [
    { ...group, unit: "MB/s", loads: of("MB/s") },
    { ...group, unit: "IOPS", loads: of("IOPS") },
    { ...group, unit: "µs of the server's CPU for each request", loads: cpu },
  ];
}
