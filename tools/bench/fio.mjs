// One fio job on a block device, and what it reached.
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/**
 * Timed, or each block is visited once; with `stepBytes`, one at each multiple of that. The main thread
 * continues meanwhile: it serves the reactors.
 *
 * @returns {Promise<number>} I/Os per second
 */
export async function fioIops(device, load) {
  const { rw, blockBytes, depth, runtimeS, sizeBytes, stepBytes, isTimed } = load;
  const stepCount = stepBytes === undefined ? undefined : sizeBytes / stepBytes;
  const { stdout } = await run(
    "fio",
    [
      "--name=bench",
      `--filename=${device}`,
      `--rw=${rw}${stepCount === undefined ? "" : `:${stepBytes - blockBytes}`}`,
      `--bs=${blockBytes}`,
      `--iodepth=${depth}`,
      "--ioengine=io_uring",
      "--direct=1",
      "--randrepeat=1",
      `--size=${sizeBytes}`,
      ...(stepCount === undefined ? [] : [`--number_ios=${stepCount}`]),
      ...(isTimed === true ? ["--norandommap", "--time_based", `--runtime=${runtimeS}`] : []),
      "--output-format=json",
    ],
    { maxBuffer: 2 ** 26 },
  );
  const [job] = JSON.parse(stdout.slice(stdout.indexOf("{"))).jobs;
  const side = rw.endsWith("read") ? job.read : job.write;
  const wanted = isTimed === true ? side.total_ios : (stepCount ?? sizeBytes / blockBytes);
  if (job.error !== 0 || side.total_ios !== wanted) {
    throw new Error(`fio on ${device}: ${side.total_ios} of ${wanted} I/Os, error ${job.error}`);
  }
  return side.iops;
}
