/** What the scenarios in the VM need. They run as root on a kernel with ublk_drv, one file at a time. */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { listDeviceIds, UblkDevice } from "@blksnap/ublk";
import * as assert from "uvu/assert";

export const examplesDir = fileURLToPath(new URL("../examples/", import.meta.url));

/** Runs a command; it must succeed. Answers what it printed. */
export function run(command, ...args) {
  const done = spawnSync(command, args, { encoding: "utf8", timeout: 240_000 });
  const told = `${command} ${args.join(" ")}: ${done.stdout}${done.stderr}${done.error ?? ""}`;
  assert.is(done.status, 0, told);
  return done.stdout;
}

/** Like run(), while the event loop continues. */
export async function runBeside(command, ...args) {
  const { status, output } = await begin(command, ...args).closed;
  assert.is(status, 0, `${command} ${args.join(" ")}: ${output}`);
  return output;
}

/** Starts a command; `closed` ends with its status and output. */
export function begin(command, ...args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk) => {
      output += chunk;
    });
  }
  const closed = new Promise((resolve) => {
    child.on("close", (status, signal) => resolve({ status, signal, output }));
  });
  return { child, closed };
}

/** Serves a device while `use` runs, and answers what that does; afterwards nothing of it is left. */
export async function withDevice(options, use) {
  const errors = [];
  const device = await UblkDevice.start({ ...options, onError: (error) => errors.push(error) });
  let used;
  try {
    used = await use(device);
  } finally {
    await device.stop();
  }
  assert.equal(errors, []);
  assert.not(existsSync(device.path));
  await untilNoDevice();
  return used;
}

/** A device that others had open is gone as soon as they closed it. */
export async function untilNoDevice() {
  await until(() => listDeviceIds().length === 0, "a ublk device is left");
}

export async function until(condition, what, timeoutMs = 300_000) {
  const end = Date.now() + timeoutMs;
  while (!(await condition())) {
    assert.ok(Date.now() < end, what);
    await sleep(20);
  }
}

/** Requests that users of a device wait for. */
export function requestsInFlight(path) {
  const text = readFileSync(`/sys/block/${path.slice("/dev/".length)}/inflight`, "utf8");
  const counts = text.trim().split(/\s+/).map(Number);
  return counts.reduce((sum, count) => sum + count, 0);
}

export const fioArgs = (path, ...more) => [
  "--name=job",
  `--filename=${path}`,
  "--direct=1",
  "--group_reporting",
  "--minimal",
  ...more,
];

/** fio in a process of its own. */
export function fio(path, ...more) {
  return runBeside("fio", ...fioArgs(path, ...more));
}

/** Random writes of mixed sizes, then a read that checks every checksum. */
export function verify(path, sizeMib) {
  const sizes = "--bsrange=512-64k";
  const load = [
    "--ioengine=io_uring",
    "--iodepth=16",
    "--rw=randwrite",
    sizes,
    `--size=${sizeMib}m`,
  ];
  return fio(path, ...load, "--verify=crc32c", "--do_verify=1", "--verify_fatal=1");
}

export async function mkfsAndMount(path, kind) {
  const at = "/run/ublk-test-mount";
  mkdirSync(at, { recursive: true });
  await runBeside(`mkfs.${kind}`, "-q", path);
  await runBeside("mount", path, at);
  try {
    await runBeside("sh", "-c", `head -c 3000000 /dev/urandom >${at}/file && sync ${at}/file`);
    const before = sha(`${at}/file`);
    await runBeside("umount", at);
    await runBeside("mount", path, at);
    assert.is(sha(`${at}/file`), before);
  } finally {
    await runBeside("umount", at);
  }
}

function sha(path) {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** An attribute of a block device's queue. */
export function queueAttribute(path, name) {
  const device = path.slice("/dev/".length);
  return readFileSync(`/sys/block/${device}/queue/${name}`, "utf8").trim();
}

/** Bytes of a file or device, past whatever it has cached. */
export function bytesAt(path, offset, length) {
  const fd = openSync(path, "r");
  const bytes = Buffer.alloc(length);
  assert.is(readSync(fd, bytes, 0, length, offset), length);
  closeSync(fd);
  return bytes;
}

let hasRamDisk = false;

/** A fresh RAM disk of the kernel; its content ends with the next call, and it ends with the process. */
export function ramDisk(sizeMib) {
  const end = () => spawnSync("modprobe", ["-r", "brd"]);
  // Who comes after this file wants disks of other sizes, which a module that is there does not make.
  if (!hasRamDisk) process.once("exit", end);
  hasRamDisk = true;
  end();
  run("modprobe", "brd", "rd_nr=1", `rd_size=${sizeMib * 1024}`);
  return "/dev/ram0";
}

/** A loop device with sectors of 4096 bytes over a file on a tmpfs. */
export function loopDisk(sizeMib) {
  const file = "/dev/shm/loop-file";
  run("truncate", "-s", `${sizeMib}M`, file);
  const path = run("losetup", "--find", "--show", "--sector-size", "4096", file).trim();
  return {
    path,
    end() {
      run("losetup", "-d", path);
      run("rm", file);
    },
  };
}

/** Counts requests of a block device by kind: what /sys/block/…/stat has. */
export function statistics(path) {
  const text = readFileSync(`/sys/block/${path.slice("/dev/".length)}/stat`, "utf8");
  const [reads, , , , writes, , , , , , , discards, , , , flushes] = text
    .trim()
    .split(/\s+/)
    .map(Number);
  return { reads, writes, discards, flushes };
}
