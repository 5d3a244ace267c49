/** Disks to take snapshots of. Each is gone after the test that made it. */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "./command.mjs";
import { until } from "./wait.mjs";

const CONFIGFS = "/sys/kernel/config";
const NULL_BLK = `${CONFIGFS}/nullb`;

/** RAM disks /dev/ram0 … of one size, without any latency. */
export async function ramDisks(t, count, sizeBytes) {
  await run(["modprobe", "brd", `rd_nr=${count}`, `rd_size=${sizeBytes / 1024}`, "max_part=0"]);
  // Fails while anything still has one of them open.
  t.defer(() => run(["modprobe", "-r", "brd"]));
  return Array.from({ length: count }, (_, index) => `/dev/ram${index}`);
}

async function loadNullBlk() {
  await run(["modprobe", "null_blk", "nr_devices=0"]);
  if (statSync(NULL_BLK, { throwIfNoEntry: false }) === undefined) {
    await run(["mount", "-t", "configfs", "none", CONFIGFS]);
  }
}

/**
 * A null_blk device that keeps its data in memory.
 *
 * @param {{sizeMib: number, blockBytes?: 512 | 4096, latencyNs?: number, discard?: boolean, cacheMib?: number}} options
 */
export async function nullDisk(t, options) {
  await loadNullBlk();
  const name = t.name("e2e");
  const folder = join(NULL_BLK, name);
  mkdirSync(folder);
  t.defer(() => {
    writeFileSync(join(folder, "power"), "0");
    rmdirSync(folder);
  });
  const latencyNs = options.latencyNs ?? 0;
  const settings = {
    size: options.sizeMib,
    blocksize: options.blockBytes ?? 512,
    memory_backed: 1,
    discard: options.discard ? 1 : 0,
    cache_size: options.cacheMib ?? 0,
    irqmode: latencyNs > 0 ? 2 : 0,
    completion_nsec: latencyNs,
    power: 1,
  };
  for (const [key, value] of Object.entries(settings)) {
    writeFileSync(join(folder, key), String(value));
  }
  const path = `/dev/${name}`;
  await until(`${path} is there`, () => statSync(path, { throwIfNoEntry: false }) !== undefined);
  return path;
}

/** A regular file of the size, all holes. */
export function imageFile(t, sizeBytes, folder = t.folder) {
  const path = join(folder, t.name("disk-"));
  const fd = openSync(path, "wx");
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  t.defer(() => rm(path));
  return path;
}

/** A loop device over a file on tmpfs. */
export async function loopDisk(t, sizeBytes, { sectorBytes = 512, readOnly = false } = {}) {
  const file = imageFile(t, sizeBytes);
  const options = ["--sector-size", String(sectorBytes), ...(readOnly ? ["--read-only"] : [])];
  const path = (await run(["losetup", "--find", "--show", ...options, file])).trim();
  t.defer(() => run(["losetup", "--detach", path]));
  return path;
}

/**
 * A disk that looks at what a read wants only after a delay, so that the read sees all writes that were
 * made meanwhile. Writes are not delayed.
 */
export async function lateReadingDisk(t, below, sizeBytes, delayMs) {
  await run(["modprobe", "dm-delay"]);
  const name = t.name("blksnap-e2e-late-");
  const table = `0 ${sizeBytes / 512} delay ${below} 0 ${delayMs} ${below} 0 0`;
  await run(["dmsetup", "create", name, "--table", table]);
  t.defer(() => run(["dmsetup", "remove", name]));
  return `/dev/mapper/${name}`;
}
