// Alternatives that a user has: those of the kernel, and QEMU's storage daemon.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { UblkControl, UblkFeature } from "@blksnap/ublk";
import { compiled } from "./compile.mjs";
import { command } from "./disks.mjs";
import { fioIops } from "./fio.mjs";

const SECTOR_BYTES = 512;
const MIB = 2 ** 20;
const THIN_BLOCK_SECTORS = 128;
const THIN_BLOCK_BYTES = THIN_BLOCK_SECTORS * SECTOR_BYTES;
const METADATA_BYTES = 64 * MIB;

/** Why a candidate cannot be measured here, or undefined. */
function withoutModule(name) {
  const run = spawnSync("modprobe", [name], { encoding: "utf8" });
  return run.status === 0 ? undefined : `the kernel has no ${name}`;
}

function withoutProgram(name, debian) {
  const run = spawnSync(name, ["--version"]);
  return run.error === undefined ? undefined : `there is no ${name} (Debian: ${debian})`;
}

async function ublkFeatures() {
  const control = await UblkControl.open();
  const { features } = control;
  control.close();
  return features;
}

export async function withoutZeroCopy() {
  const wanted = UblkFeature.SUPPORT_ZERO_COPY | UblkFeature.AUTO_BUF_REG;
  const has = ((await ublkFeatures()) & wanted) === wanted;
  return has ? undefined : "the kernel's ublk has no AUTO_BUF_REG";
}

/** A kernel with BATCH_IO has zero copy, too. */
async function withoutBatches() {
  const has = ((await ublkFeatures()) & UblkFeature.BATCH_IO) !== 0;
  return has ? undefined : "the kernel's ublk has no BATCH_IO";
}

function createMapped(tables) {
  for (const [name, table] of Object.entries(tables)) {
    command("dmsetup", "create", name, "--table", table);
  }
}

function removeMapped(...names) {
  for (const name of names) command("dmsetup", "remove", "--retry", name);
}

/** @param kind P: its table is kept on the store, N: in memory */
function dmSnapshot(kind, chunkSectors) {
  const make = async ({ disk, store, diskBytes, emptyStore }) => {
    emptyStore();
    const sectors = diskBytes / SECTOR_BYTES;
    const image = `0 ${sectors} snapshot ${disk} ${store} ${kind} ${chunkSectors}`;
    createMapped({
      "bench-origin": `0 ${sectors} snapshot-origin ${disk}`,
      "bench-image": image,
    });
    // Resumed, the origin learns of the snapshot's chunks, and splits requests by them. Without that, it
    // saves the first chunk of each request alone.
    command("dmsetup", "suspend", "bench-origin");
    command("dmsetup", "resume", "bench-origin");
    const copiedBytes = () => {
      const status = command("dmsetup", "status", "bench-image");
      const used = / snapshot (\d+)\/\d+ (\d+)$/.exec(status);
      if (used === null) throw new Error(`dm-snapshot was lost: ${status}`);
      return (Number(used[1]) - Number(used[2])) * SECTOR_BYTES;
    };
    const next = async () => {
      const copied = { copiedBytes: copiedBytes() };
      command("dmsetup", "suspend", "bench-origin");
      removeMapped("bench-image");
      emptyStore();
      createMapped({ "bench-image": image });
      command("dmsetup", "resume", "bench-origin");
      return copied;
    };
    const end = async () => {
      try {
        copiedBytes();
      } finally {
        removeMapped("bench-origin", "bench-image");
      }
    };
    return { path: "/dev/mapper/bench-origin", imagePath: "/dev/mapper/bench-image", next, end };
  };
  return { make, missing: () => withoutModule("dm-snapshot") };
}

/** A thin volume that has blocks of its own wherever the load writes, and then a snapshot of it. */
async function dmThin({ disk, store, diskBytes, emptyStore, loadBytes }) {
  emptyStore();
  const part = METADATA_BYTES / SECTOR_BYTES;
  const sectors = diskBytes / SECTOR_BYTES;
  const pool = `0 ${2 * sectors - part} thin-pool /dev/mapper/bench-metadata /dev/mapper/bench-data`;
  createMapped({
    "bench-metadata": `0 ${part} linear ${store} 0`,
    "bench-data": `0 ${sectors} linear ${disk} 0\n${sectors} ${sectors - part} linear ${store} ${part}`,
    "bench-pool": `${pool} ${THIN_BLOCK_SECTORS} 0 1 skip_block_zeroing`,
  });
  command("dmsetup", "message", "bench-pool", "0", "create_thin 0");
  createMapped({ "bench-thin": `0 ${sectors} thin /dev/mapper/bench-pool 0` });
  const path = "/dev/mapper/bench-thin";
  const each = { blockBytes: 4096, stepBytes: THIN_BLOCK_BYTES, sizeBytes: loadBytes };
  await fioIops({ path }, { rw: "write", depth: 32, ...each });
  command("dmsetup", "suspend", "bench-thin");
  command("dmsetup", "message", "bench-pool", "0", "create_snap 1 0");
  command("dmsetup", "resume", "bench-thin");
  const end = async () => {
    removeMapped("bench-thin", "bench-pool", "bench-data", "bench-metadata");
  };
  return { path, end };
}

/** Copies nothing: it records which blocks of 64 KiB were written in the current era. */
async function dmEra({ disk, store, diskBytes, emptyStore }) {
  emptyStore();
  const sectors = diskBytes / SECTOR_BYTES;
  createMapped({ "bench-era": `0 ${sectors} era ${store} ${disk} ${THIN_BLOCK_SECTORS}` });
  return { path: "/dev/mapper/bench-era", end: async () => removeMapped("bench-era") };
}

/** copy-before-write and snapshot-access over NBD; fio is the client, no block device between. */
async function storageDaemon({ disk, store, emptyStore, folder }) {
  emptyStore();
  const socket = join(folder, "nbd");
  const file = (name, path) => [
    "--blockdev",
    `driver=host_device,node-name=${name},filename=${path},cache.direct=on`,
  ];
  const serve = (name, isWritable) => [
    "--export",
    `type=nbd,id=${name},node-name=${name},name=${name},writable=${isWritable ? "on" : "off"}`,
  ];
  const server = spawn(
    "qemu-storage-daemon",
    [
      ...file("disk", disk),
      ...file("store", store),
      ...["--blockdev", "driver=copy-before-write,node-name=front,file=disk,target=store"],
      ...["--blockdev", "driver=snapshot-access,node-name=image,file=front"],
      ...["--nbd-server", `addr.type=unix,addr.path=${socket},max-connections=0`],
      ...serve("front", true),
      ...serve("image", false),
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const ended = once(server, "exit");
  for (let tries = 0; !existsSync(socket); tries++) {
    if (tries === 200 || server.exitCode !== null) throw new Error("qemu-storage-daemon failed");
    await sleep(50);
  }
  const uri = (name) => `nbd+unix:///${name}?socket=${socket}`;
  const end = async () => {
    server.kill("SIGTERM");
    await ended;
  };
  return { nbdUri: uri("front"), imageNbdUri: uri("image"), end };
}

async function cServer({ disk, folder }, ...options) {
  const server = spawn(compiled("ublk-loop", folder), [disk, ...options], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(server, "exit");
  const [path] = await once(createInterface(server.stdout), "line");
  const end = async () => {
    server.stdin.end();
    const [status] = await ended;
    if (status !== 0) throw new Error(`ublk-loop failed with status ${status}`);
  };
  return { path, end };
}

function loop(...options) {
  return async ({ disk }) => {
    const path = command("losetup", "--find", "--show", ...options, disk);
    return { path, end: async () => void command("losetup", "--detach", path) };
  };
}

/** By name: what creates it and returns its paths and how it ends, and what says why it is not available. */
export const PEERS = {
  "raw disk": { make: async ({ disk }) => ({ path: disk, end: async () => undefined }) },
  loop: { make: loop() },
  "loop direct": { make: loop("--direct-io=on") },
  "C limit server": { make: (bench) => cServer(bench) },
  "C, zero copy": {
    make: (bench) => cServer(bench, "--zero-copy"),
    missing: withoutZeroCopy,
  },
  "C, batches": { make: (bench) => cServer(bench, "--batch"), missing: withoutBatches },
  "C, zero copy, batches": {
    make: (bench) => cServer(bench, "--zero-copy", "--batch"),
    missing: withoutBatches,
  },
  "dm-snapshot P 8": dmSnapshot("P", 8),
  "dm-snapshot P 128": dmSnapshot("P", 128),
  "dm-snapshot N 8": dmSnapshot("N", 8),
  "dm-snapshot N 128": dmSnapshot("N", 128),
  "dm-thin": { make: dmThin, missing: () => withoutModule("dm-thin-pool") },
  "dm-era": { make: dmEra, missing: () => withoutModule("dm-era") },
  "qemu copy-before-write": {
    make: storageDaemon,
    missing: () => withoutProgram("qemu-storage-daemon", "qemu-utils"),
  },
};
