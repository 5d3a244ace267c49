// What keeping the changed-block map on a medium costs the writers: a persistent tracker against one
// that is not, on one RAM disk, in turn. The medium is a disk that takes LATENCY_US for each request.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { Driver } from "@blksnap/driver";
import { pino } from "pino";
import { formatTable, median, numberArgument } from "../table.mjs";
import { fioIops } from "./fio.mjs";

const RAM_DISK = "/dev/ram0";
const SIZE_BYTES = 256 * 2 ** 20;
const MEDIUM = "/dev/nullb0";
const MEDIUM_MIB = 128;
const LATENCY_US = 100;
const MOUNT = "/mnt/state";
/** Of the changed-block map of such a disk. */
const BLOCK_BYTES = 65_536;
const args = process.argv.slice(2);
const rounds = numberArgument(args, "rounds", 5);
const runtimeS = numberArgument(args, "runtime", 2);

/** Each group begins with a map in which nothing is recorded. */
const GROUPS = [
  [
    { name: "first pass in sequence, 1 MiB, QD 4", rw: "write", blockBytes: 2 ** 20, depth: 4 },
    { name: "recorded blocks, 4 KiB random, QD 1", rw: "randwrite", depth: 1, runtimeS },
    { name: "recorded blocks, 4 KiB random, QD 32", rw: "randwrite", depth: 32, runtimeS },
  ],
  [{ name: "first writes at random, QD 1", rw: "randwrite", blockBytes: BLOCK_BYTES, depth: 1 }],
  [{ name: "first writes at random, QD 32", rw: "randwrite", blockBytes: BLOCK_BYTES, depth: 32 }],
];
const CANDIDATES = { "not persistent": {}, persistent: { persistent: true } };

function command(name, ...commandArgs) {
  const run = spawnSync(name, commandArgs, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${name} failed: ${run.stderr}`);
}

command("modprobe", "brd", "rd_nr=1", `rd_size=${SIZE_BYTES / 1024}`);
command(
  "modprobe",
  "null_blk",
  ...["nr_devices=1", "memory_backed=1", `gb=1`, "irqmode=2"],
  `completion_nsec=${LATENCY_US * 1000}`,
);
command("mkfs.ext4", "-q", MEDIUM, `${MEDIUM_MIB}M`);
mkdirSync(MOUNT, { recursive: true });
command("mount", MEDIUM, MOUNT);
command("dd", "if=/dev/zero", `of=${RAM_DISK}`, "bs=1M", `count=${SIZE_BYTES / 2 ** 20}`);

const logger = pino({ level: "error" });
const driver = await Driver.start({ logger, persistentDirectory: `${MOUNT}/blksnap` });
const iops = new Map();
for (let round = 0; round < rounds; round++) {
  for (const [candidate, options] of Object.entries(CANDIDATES)) {
    for (const loads of GROUPS) {
      const { front } = await driver.attach(RAM_DISK, options);
      for (const load of loads) {
        const key = `${load.name}/${candidate}`;
        const reached = fioIops(front, { blockBytes: 4096, sizeBytes: SIZE_BYTES, ...load });
        iops.set(key, [...(iops.get(key) ?? []), reached]);
      }
      await driver.detach(RAM_DISK, { forget: true });
    }
  }
  process.stderr.write(`round ${round + 1} of ${rounds} done\n`);
}
await driver.stop();

const names = Object.keys(CANDIDATES);
const rows = GROUPS.flat().map(({ name }) => {
  const medians = names.map((one) => Math.round(median(iops.get(`${name}/${one}`))));
  return { load: name, iops: Object.fromEntries(names.map((one, i) => [one, medians[i]])) };
});
if (args.includes("--json")) {
  console.log(JSON.stringify({ schema: 1, bench: "persistent", rounds, rows }));
} else {
  const cells = rows.map(({ load, iops: of }) => [
    load,
    ...names.map((name) => String(of[name])),
    (of.persistent / of["not persistent"]).toFixed(2),
  ]);
  console.log(`IOPS of writes, medians of ${rounds} interleaved rounds`);
  console.log(formatTable([["", ...names, "ratio"], ...cells]));
}
