/** Disks to take snapshots of. Each is gone after the test that made it. */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "./command.mjs";
import { until } from "./wait.mjs";

const SECTOR_BYTES = 512;
const CONFIGFS = "/sys/kernel/config";
const NULL_BLK = `${CONFIGFS}/nullb`;

/** RAM disks /dev/ram0 … of one size, without any latency. */
export async function ramDisks(t, count, sizeBytes) {
  // A loaded module would create none; this fails if it is in use.
  await run(["modprobe", "-r", "brd"]);
  await run(["modprobe", "brd", `rd_nr=${count}`, `rd_size=${sizeBytes / 1024}`, "max_part=0"]);
  // Fails while one of them is still open.
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
 * A null_blk device that keeps its data in memory, or forgets it.
 *
 * @param {{sizeMib: number, blockBytes?: 512 | 4096, latencyNs?: number, discard?: boolean, cacheMib?: number, fua?: boolean, isForgetful?: boolean, zoneMib?: number}} options
 *   `zoneMib`: a disk with zones of this size, if the kernel knows such
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
    memory_backed: options.isForgetful ? 0 : 1,
    discard: options.discard ? 1 : 0,
    cache_size: options.cacheMib ?? 0,
    ...(options.fua === undefined ? {} : { fua: options.fua ? 1 : 0 }),
    irqmode: latencyNs > 0 ? 2 : 0,
    completion_nsec: latencyNs,
    ...(options.zoneMib === undefined ? {} : { zoned: 1, zone_size: options.zoneMib }),
    power: 1,
  };
  for (const [key, value] of Object.entries(settings)) {
    writeFileSync(join(folder, key), String(value));
  }
  const path = `/dev/${name}`;
  await until(`${path} is there`, () => statSync(path, { throwIfNoEntry: false }) !== undefined);
  return path;
}

/** A sparse regular file of the size. */
export function imageFile(t, sizeBytes, folder = t.folder) {
  const path = join(folder, t.name("disk-"));
  const fd = openSync(path, "wx");
  ftruncateSync(fd, sizeBytes);
  closeSync(fd);
  t.defer(() => rm(path));
  return path;
}

/** A loop device over a file on tmpfs, which may be given. */
export async function loopDisk(
  t,
  sizeBytes,
  { sectorBytes = SECTOR_BYTES, readOnly = false, file = imageFile(t, sizeBytes) } = {},
) {
  const options = ["--sector-size", String(sectorBytes), ...(readOnly ? ["--read-only"] : [])];
  const path = (await run(["losetup", "--find", "--show", ...options, file])).trim();
  t.defer(() => run(["losetup", "--detach", path]));
  return path;
}

/**
 * Gives a device a table of primary partitions, one after the other from the first MiB on, and answers
 * their nodes.
 */
export async function partition(device, sizesMib) {
  const table = Buffer.alloc(SECTOR_BYTES);
  let start = 2 ** 20 / SECTOR_BYTES;
  for (const [index, sizeMib] of sizesMib.entries()) {
    const sectors = (sizeMib * 2 ** 20) / SECTOR_BYTES;
    const entry = table.subarray(446 + 16 * index);
    entry[4] = 0x83;
    entry.writeUInt32LE(start, 8);
    entry.writeUInt32LE(sectors, 12);
    start += sectors;
  }
  table.writeUInt16LE(0xaa55, 510);
  await run(["dd", `of=${device}`, "bs=512", "conv=fsync"], { input: table });
  // Not BLKRRPART, which a front does not support.
  await run(["partx", "--update", device]);
  const nodes = sizesMib.map((_, index) => `${device}p${index + 1}`);
  await until("the partitions are there", () => nodes.every((node) => existsSync(node)));
  return nodes;
}

/** A SCSI disk that can be pulled out while it is in use. */
export async function scsiDisk(t, sizeMib) {
  for (const name of ["sd_mod", "scsi_debug"]) {
    const options = name === "scsi_debug" ? [`dev_size_mb=${sizeMib}`, "delay=0"] : [];
    await run(["modprobe", name, ...options]);
  }
  t.defer(() => run(["modprobe", "-r", "scsi_debug"]));
  const found = await until("the disk is there", () => {
    const names = existsSync("/sys/block") ? readdirSync("/sys/block") : [];
    return names.find(
      (name) =>
        name.startsWith("sd") && read(`/sys/block/${name}/device/model`).includes("scsi_debug"),
    );
  });
  await until("its node is there", () => existsSync(`/dev/${found}`));
  return {
    path: `/dev/${found}`,
    pullOut: () => writeFileSync(`/sys/block/${found}/device/delete`, "1"),
  };
}

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
