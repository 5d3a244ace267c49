// File target and tracked front against the kernel's loop device, on one RAM disk, in turn.
import { spawnSync } from "node:child_process";
import { Driver } from "@blksnap/driver";
import { fileTarget, UblkDevice } from "@blksnap/ublk";
import { pino } from "pino";
import { formatTable, median, numberArgument } from "../table.mjs";
import { fioIops } from "./fio.mjs";

const RAM_DISK = "/dev/ram0";
const SIZE_BYTES = 256 * 2 ** 20;
const args = process.argv.slice(2);
const rounds = numberArgument(args, "rounds", 5);
const runtimeS = numberArgument(args, "runtime", 2);

const LOADS = [
  { name: "4 KiB random read, QD 1", rw: "randread", blockBytes: 4096, depth: 1 },
  { name: "4 KiB random write, QD 1", rw: "randwrite", blockBytes: 4096, depth: 1 },
  { name: "4 KiB random read, QD 32", rw: "randread", blockBytes: 4096, depth: 32 },
  { name: "4 KiB random write, QD 32", rw: "randwrite", blockBytes: 4096, depth: 32 },
  { name: "1 MiB sequential read, QD 4", rw: "read", blockBytes: 2 ** 20, depth: 4 },
  { name: "1 MiB sequential write, QD 4", rw: "write", blockBytes: 2 ** 20, depth: 4 },
];

function command(name, ...commandArgs) {
  const run = spawnSync(name, commandArgs, { encoding: "utf8" });
  if (run.status !== 0) throw new Error(`${name} failed: ${run.stderr}`);
  return run.stdout.trim();
}

const driver = await Driver.start({ logger: pino({ level: "error" }) });

const CANDIDATES = {
  "RAM disk": async () => ({ path: RAM_DISK, end: async () => undefined }),
  loop: async () => {
    const path = command("losetup", "--find", "--show", RAM_DISK);
    return { path, end: async () => command("losetup", "--detach", path) };
  },
  "loop direct": async () => {
    const path = command("losetup", "--find", "--show", "--direct-io=on", RAM_DISK);
    return { path, end: async () => command("losetup", "--detach", path) };
  },
  "file target": async () => {
    const device = await UblkDevice.start({ target: fileTarget({ path: RAM_DISK }) });
    return { path: device.path, end: () => device.stop() };
  },
  "tracked front": async () => {
    const { front } = await driver.attach(RAM_DISK);
    return { path: front, end: () => driver.detach(RAM_DISK) };
  },
};

command("modprobe", "brd", "rd_nr=1", `rd_size=${SIZE_BYTES / 1024}`);
command("dd", "if=/dev/zero", `of=${RAM_DISK}`, "bs=1M", `count=${SIZE_BYTES / 2 ** 20}`);
const iops = new Map();
for (let round = 0; round < rounds; round++) {
  for (const [candidate, make] of Object.entries(CANDIDATES)) {
    const { path, end } = await make();
    for (const load of LOADS) {
      const key = `${load.name}/${candidate}`;
      const reached = fioIops(path, { ...load, runtimeS, sizeBytes: SIZE_BYTES });
      iops.set(key, [...(iops.get(key) ?? []), reached]);
    }
    await end();
  }
  process.stderr.write(`round ${round + 1} of ${rounds} done\n`);
}
await driver.stop();

const names = Object.keys(CANDIDATES);
const rows = LOADS.map((load) => {
  const medians = names.map((name) => Math.round(median(iops.get(`${load.name}/${name}`))));
  return { load: load.name, iops: Object.fromEntries(names.map((name, i) => [name, medians[i]])) };
});
if (args.includes("--json")) {
  console.log(JSON.stringify({ schema: 1, bench: "passthrough", rounds, rows }));
} else {
  const cells = rows.map(({ load, iops: of }) => [
    load,
    ...names.map((name) => String(of[name])),
    (of["file target"] / of.loop).toFixed(2),
    (of["tracked front"] / of.loop).toFixed(2),
  ]);
  console.log(`IOPS, medians of ${rounds} interleaved rounds of ${runtimeS} s`);
  console.log(formatTable([["", ...names, "target/loop", "front/loop"], ...cells]));
}
