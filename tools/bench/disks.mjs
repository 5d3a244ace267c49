// The disks that everything is measured on: one to be written, one for old data, of a kind that is chosen.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const MIB = 2 ** 20;
const CONFIGFS = "/sys/kernel/config";
const NULL_BLK = `${CONFIGFS}/nullb`;

/** By name: latency of each request, and which part of the sizes of loads without an end of their own is used. */
export const DISK_KINDS = {
  ram: { title: "RAM disks", share: 1 },
  null100us: { title: "null_blk, 100 µs for each request", latencyUs: 100, share: 1 },
  null4ms: { title: "null_blk, 4 ms for each request", latencyUs: 4000, share: 1 / 32 },
};

const made = [];
let isBrdLoaded = false;

/** Runs a program that must succeed; answers what it prints. */
export function command(name, ...args) {
  const run = spawnSync(name, args, { encoding: "utf8" });
  if (run.status !== 0) {
    throw new Error(`${name} ${args.join(" ")} failed: ${run.stderr || run.error}`);
  }
  return run.stdout.trim();
}

/** A disk in memory that counts what is read and written, and takes `latencyUs` for each request. */
export async function nullDisk(name, { sizeBytes, latencyUs = 0 }) {
  command("modprobe", "null_blk", "nr_devices=0");
  if (!existsSync(NULL_BLK)) command("mount", "-t", "configfs", "none", CONFIGFS);
  const folder = `${NULL_BLK}/${name}`;
  mkdirSync(folder);
  const settings = {
    size: sizeBytes / MIB,
    blocksize: 512,
    memory_backed: 1,
    discard: 1,
    irqmode: latencyUs > 0 ? 2 : 0,
    completion_nsec: latencyUs * 1000,
    power: 1,
  };
  for (const [key, value] of Object.entries(settings)) {
    writeFileSync(`${folder}/${key}`, String(value));
  }
  made.push(folder);
  const path = `/dev/${name}`;
  for (let tries = 0; !existsSync(path); tries++) {
    if (tries === 100) throw new Error(`${path} does not appear`);
    await sleep(50);
  }
  return path;
}

/** The two disks, all zero: answers their paths. */
export async function makeDisks(kind, sizeBytes) {
  const { latencyUs } = DISK_KINDS[kind];
  if (latencyUs !== undefined) {
    const disk = await nullDisk("bench-disk", { sizeBytes, latencyUs });
    return { disk, store: await nullDisk("bench-store", { sizeBytes, latencyUs }) };
  }
  command("modprobe", "brd", "rd_nr=2", `rd_size=${sizeBytes / 1024}`, "max_part=0");
  isBrdLoaded = true;
  return { disk: "/dev/ram0", store: "/dev/ram1" };
}

/** A name that persistent snapshots accept as one that means the same disk after a reboot. It is removed with the folder. */
export function lastingName(path, folder) {
  const name = join(folder, "store");
  if (!existsSync(name)) symlinkSync(path, name);
  return name;
}

export function removeDisks() {
  for (const folder of made.splice(0)) {
    writeFileSync(`${folder}/power`, "0");
    rmdirSync(folder);
  }
  if (isBrdLoaded) command("modprobe", "-r", "brd");
  isBrdLoaded = false;
}
