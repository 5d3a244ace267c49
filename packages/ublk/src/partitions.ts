/**
 * The partitions of a ublk device, told to the kernel from outside.
 *
 * START_DEV can read the partition table itself. Up to Linux 6.18 it holds the device's mutex while
 * it does (ublk_drv.c, ublk_ctrl_start_dev), and the reading waits for the server: one that is killed
 * at that moment can neither end, since its own command is not done, nor be replaced, since that
 * takes the mutex. Only a reboot helps. Linux 7.0 and later read it in a work of their own, which may be
 * done before START_DEV has ended or after (and some read freed memory when the device ends meanwhile);
 * NO_AUTO_PART_SCAN keeps them from it. On all kernels Queue has the table left alone, and a process that
 * holds nothing reads it afterwards: without a server it waits for the next one.
 */
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename } from "node:path";
import { bounded } from "@blksnap/uring";
import { UblkError } from "./errors.js";

const TIMEOUT_MS = 10_000;
/** What partx says of a device without a table, or with one that cannot be read. */
const NO_TABLE = /failed to read partition table/;

/**
 * Makes the partitions that the table of a live device names, `/dev/ublkbNpM`, as the kernel does for
 * other disks. Does nothing where there is no table, or where partitions were made before.
 * @param path `/dev/ublkbN`
 * @throws UblkError PARTITIONS_FAILED: no partx (of util-linux), what it says, or 10 s have passed
 */
export async function addPartitions(path: string): Promise<void> {
  if (hasPartitions(path)) return;
  const timedOut = (): Error => failed(path, `partx did not end in ${TIMEOUT_MS} ms`);
  await bounded(runPartx(path), TIMEOUT_MS, timedOut);
}

function hasPartitions(path: string): boolean {
  const name = basename(path);
  return readdirSync(`/sys/block/${name}`).some((entry) => entry.startsWith(`${name}p`));
}

function runPartx(path: string): Promise<void> {
  const env = { ...process.env, LC_ALL: "C" };
  return new Promise((resolve, reject) => {
    execFile("partx", ["--add", path], { env }, (error, _stdout, stderr) => {
      if (error === null || NO_TABLE.test(stderr)) resolve();
      else reject(failed(path, stderr.trim() || error.message, error));
    });
  });
}

function failed(path: string, why: string, cause?: unknown): UblkError {
  const what = `the partitions of ${path} are not there: ${why}`;
  return new UblkError("PARTITIONS_FAILED", what, 0, cause);
}
