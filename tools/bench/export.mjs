// Exports of an image file by a daemon of `--frontend nbd`, against dd at its best block size: whole commands, as users
// start them, on the disk of temporary files (TMPDIR). dd reads past the page cache, as the daemon does.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { NbdClient } from "../../packages/nbd/dist/index.js";
import { randomFile } from "./files.mjs";

const MIB = 2 ** 20;
const DISK_BYTES = 512 * MIB;
/** Of an incremental one; as the blocks of the map count it. */
const CHANGED_BYTES = 128 * MIB;
const MAP_BLOCK_BYTES = 65_536;
const DD_BLOCKS = ["256K", "1M", "4M"];
const WRITES_IN_FLIGHT = 32;
const WAIT_MS = 50;
const START_MS_MAX = 120_000;
/** Node reads these certificates at each start, which no command here needs: 30 ms of an export. */
const { NODE_EXTRA_CA_CERTS: _, ...ENVIRONMENT } = process.env;

/** What is written between two exports: each write into blocks of the map of its own. */
const CHANGES = [
  { name: "4 KiB at random", bytes: 4096, isRandom: true },
  { name: "64 KiB at random", bytes: 65_536, isRandom: true },
  { name: "1 MiB at random", bytes: MIB, isRandom: true },
  { name: "in sequence", bytes: MIB, isRandom: false },
];

class Machine {
  #folder = mkdtempSync(join(tmpdir(), "blksnap-bench-"));
  #daemon;
  #front;

  path(name) {
    return join(this.#folder, name);
  }

  get disk() {
    return this.path("disk");
  }

  async start() {
    writeFileSync(this.disk, randomFile(DISK_BYTES));
    for (const name of ["state", "kept", "store"]) mkdirSync(this.path(name));
    const words = [
      ...["node_modules/.bin/blksnapd", "--frontend=nbd", "--log-level=warn"],
      ...[`--socket=${this.path("socket")}`, `--state-dir=${this.path("state")}`],
      `--persistent-dir=${this.path("kept")}`,
    ];
    this.#daemon = spawn(process.execPath, words, {
      stdio: ["ignore", "ignore", "inherit"],
      env: ENVIRONMENT,
    });
    for (let waitedMs = 0; !existsSync(this.path("socket")); waitedMs += WAIT_MS) {
      if (this.#daemon.exitCode !== null || waitedMs > START_MS_MAX)
        throw new Error("the daemon does not serve");
      await sleep(WAIT_MS);
    }
    const { front } = JSON.parse(this.ask("attach", "-d", this.disk, "--json"));
    this.#front = front;
  }

  ask(verb, ...words) {
    const all = ["node_modules/.bin/blksnapctl", verb, "--socket", this.path("socket"), ...words];
    const { status, stdout, stderr } = spawnSync(process.execPath, all, {
      encoding: "utf8",
      env: ENVIRONMENT,
    });
    if (status !== 0) throw new Error(`blksnapctl ${verb}: ${stderr}`);
    return stdout;
  }

  /** Writes to blocks of the map that are not changed yet, so many that together they are what is to be copied. */
  async change({ bytes, isRandom }) {
    const stepBytes = Math.max(bytes, MAP_BLOCK_BYTES);
    const places = Array.from({ length: DISK_BYTES / stepBytes }, (_, index) => index * stepBytes);
    if (isRandom) places.sort(() => Math.random() - 0.5);
    const chosen = places.slice(0, CHANGED_BYTES / stepBytes);
    const client = await NbdClient.connect(this.#front);
    const data = randomFile(bytes);
    const lane = async () => {
      for (let at = chosen.pop(); at !== undefined; at = chosen.pop()) await client.write(at, data);
    };
    await Promise.all(Array.from({ length: WRITES_IN_FLIGHT }, lane));
    await client.flush();
    await client.close();
  }

  /** MB/s of what it has read. */
  export(to, ...words) {
    const started = performance.now();
    const more = ["--to", this.path(to), "-f", this.path("store"), "--json", ...words];
    const answer = JSON.parse(
      this.ask("export", "-d", this.disk, ...more)
        .trim()
        .split("\n")
        .at(-1),
    );
    return answer.read_bytes / 1e3 / (performance.now() - started);
  }

  /** MB/s of the best block size. */
  dd() {
    const rates = DD_BLOCKS.map((block) => {
      rmSync(this.path("dd"), { force: true });
      const words = [`if=${this.disk}`, `of=${this.path("dd")}`, `bs=${block}`];
      const started = performance.now();
      const { status, stderr } = spawnSync("dd", [...words, "iflag=direct", "conv=fsync"], {
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`dd: ${stderr}`);
      return DISK_BYTES / 1e3 / (performance.now() - started);
    });
    rmSync(this.path("dd"));
    return Math.max(...rates);
  }

  remove(...names) {
    for (const name of names) rmSync(this.path(name), { recursive: true, force: true });
  }

  async stop() {
    if (this.#daemon !== undefined && this.#daemon.exitCode === null) {
      const ended = new Promise((done) => this.#daemon.once("exit", done));
      this.#daemon.kill();
      await ended;
    }
    rmSync(this.#folder, { recursive: true });
  }
}

/** One value of each load. */
async function round(machine, note) {
  const both = (name, dd, blksnap) => note(name, { dd, blksnap });
  const dd = machine.dd();
  machine.remove("folder", "copy", "copy.blksnap.json");
  both("full, a folder that is empty", dd, machine.export("folder"));
  both("full, --raw, a new file", dd, machine.export("copy", "--raw"));
  for (const change of CHANGES) {
    await machine.change(change);
    both(
      `incremental, --raw, ${change.name}`,
      machine.dd(),
      machine.export("copy", "--raw", "--auto"),
    );
  }
}

/** A group of results as report.mjs shows it. @returns {Promise<object>} */
export async function measureExport(rounds) {
  const loads = new Map();
  const note = (name, values) => {
    const load = loads.get(name) ?? { name, values: { dd: [], blksnap: [] } };
    for (const [candidate, value] of Object.entries(values)) load.values[candidate].push(value);
    loads.set(name, load);
    process.stderr.write(
      `bench: ${name}: ${values.blksnap.toFixed(0)} MB/s, dd ${values.dd.toFixed(0)}\n`,
    );
  };
  const machine = new Machine();
  try {
    await machine.start();
    for (let count = 0; count < rounds; count++) await round(machine, note);
  } finally {
    await machine.stop();
  }
  return { series: "export", unit: "MB/s", reference: "dd", loads: [...loads.values()] };
}
