// One fio job on a device, what it reached, and what that took of the machine's processors.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";

const run = promisify(execFile);
const GIB = 2 ** 30;
/** Of /proc/stat. */
const TICKS_PER_S = 100;

/** Seconds that all processors of the machine have worked. */
function busyS() {
  const [, user, nice, system, , , irq, softirq] = readFileSync("/proc/stat", "utf8")
    .split("\n")[0]
    .split(/ +/)
    .map(Number);
  return (user + nice + system + irq + softirq) / TICKS_PER_S;
}

function where({ path, nbdUri }) {
  if (nbdUri !== undefined) return ["--ioengine=nbd", `--uri=${nbdUri}`];
  return ["--ioengine=io_uring", `--filename=${path}`];
}

function range({ sizeBytes, stepBytes, isTimed, runtimeS }) {
  if (isTimed === true) return ["--norandommap", "--time_based", `--runtime=${runtimeS}`];
  return stepBytes === undefined ? [] : [`--number_ios=${sizeBytes / stepBytes}`];
}

/** fio with these options; answers what its JSON says of each job. */
export async function fioJobs(options) {
  const words = [...options, "--output-format=json"];
  const { stdout } = await run("fio", words, { maxBuffer: 2 ** 26 });
  return JSON.parse(stdout.slice(stdout.indexOf("{"))).jobs;
}

/** Options of one job of several that run at once, as fioJobs() takes them. */
export function timedJob({ name, path, rw, blockBytes, depth, sizeBytes, runtimeS }) {
  return [
    `--name=${name}`,
    `--filename=${path}`,
    "--ioengine=io_uring",
    "--direct=1",
    "--norandommap",
    "--time_based",
    `--runtime=${runtimeS}`,
    `--rw=${rw}`,
    `--bs=${blockBytes}`,
    `--iodepth=${depth}`,
    `--size=${sizeBytes}`,
  ];
}

/**
 * Timed, or each block is visited once; with `stepBytes`, one at each multiple of that. The main thread
 * continues meanwhile: it serves the reactors.
 *
 * @param device a block device's `path`, or the `nbdUri` of an export
 * @returns I/Os per second, and the processor time of all but fio for each GiB, in s
 */
export async function fioIops(device, load) {
  const { rw, blockBytes, depth, sizeBytes, stepBytes, isTimed, readPercent, offsetBytes } = load;
  const before = busyS();
  const [job] = await fioJobs([
    "--name=bench",
    ...where(device),
    `--rw=${rw}${stepBytes === undefined ? "" : `:${stepBytes - blockBytes}`}`,
    ...(readPercent === undefined ? [] : [`--rwmixread=${readPercent}`]),
    `--bs=${blockBytes}`,
    `--iodepth=${depth}`,
    "--direct=1",
    "--randrepeat=1",
    `--size=${sizeBytes}`,
    `--offset=${offsetBytes ?? 0}`,
    ...range(load),
  ]);
  const workedS = busyS() - before;
  const total = job.read.total_ios + job.write.total_ios;
  const once = sizeBytes / (stepBytes ?? blockBytes);
  if (job.error !== 0 || (isTimed !== true && total !== once) || total === 0) {
    const name = device.path ?? device.nbdUri;
    throw new Error(`fio on ${name}: ${total} of ${once} I/Os, error ${job.error}`);
  }
  const ownS = ((job.usr_cpu + job.sys_cpu) / 100) * (job.job_runtime / 1000);
  const cpuSPerGib = (Math.max(0, workedS - ownS) * GIB) / (total * blockBytes);
  return { iops: job.read.iops + job.write.iops, cpuSPerGib };
}
