/**
 * Adds the partitions of a ublk device from another process.
 *
 * START_DEV can read the partition table itself. Up to Linux 6.18 it holds the device's mutex meanwhile (ublk_drv.c,
 * ublk_ctrl_start_dev), and the read waits for the server: a server that is killed at that moment can neither end,
 * because its own command is pending, nor be replaced, because that takes the mutex. Only a reboot helps. Linux 7.0
 * and later read the table in a separate work item, which may end before or after START_DEV (and some use freed
 * memory if the device ends meanwhile); NO_AUTO_PART_SCAN prevents it. So on all kernels Queue suppresses the read,
 * and a process that holds nothing reads the table afterwards: without a server it waits for the next one.
 */
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { basename } from "node:path";
import { bounded } from "@blksnap/uring";
import { UblkError } from "./errors.js";

const TIMEOUT_MS = 10_000;
/** partx's message for a device without a table, or with an unreadable one. */
const NO_TABLE = /failed to read partition table/;

/**
 * Creates the partitions of a live device's table, `/dev/ublkbNpM`, as the kernel does for other disks. Does nothing
 * if there is no table, or the partitions exist already.
 * @param path `/dev/ublkbN`
 * @throws UblkError PARTITIONS_FAILED: partx (of util-linux) is missing, has failed, or 10 s have passed
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
