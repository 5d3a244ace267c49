// One fio job on a block device, and what it reached.
import { spawnSync } from "node:child_process";

/** Without a runtime each block is visited once. @returns {number} I/Os per second */
export function fioIops(device, { rw, blockBytes, depth, runtimeS, sizeBytes }) {
  const run = spawnSync(
    "fio",
    [
      "--name=bench",
      `--filename=${device}`,
      `--rw=${rw}`,
      `--bs=${blockBytes}`,
      `--iodepth=${depth}`,
      "--ioengine=io_uring",
      "--direct=1",
      "--randrepeat=1",
      `--size=${sizeBytes}`,
      ...(runtimeS === undefined ? [] : ["--norandommap", "--time_based", `--runtime=${runtimeS}`]),
      "--output-format=json",
    ],
    { encoding: "utf8", maxBuffer: 2 ** 26 },
  );
  if (run.status !== 0) throw new Error(`fio on ${device} failed: ${run.stderr}${run.stdout}`);
  const [job] = JSON.parse(run.stdout.slice(run.stdout.indexOf("{"))).jobs;
  return rw.endsWith("read") ? job.read.iops : job.write.iops;
}
