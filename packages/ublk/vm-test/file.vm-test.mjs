/** The file target over a RAM disk, a loop device with large sectors, and a regular file. */
import { spawnSync } from "node:child_process";
import { mkdirSync, statSync } from "node:fs";
import { fileTarget, listDeviceIds, UblkControl, UblkDevice, UblkFeature } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { halfTableTarget } from "./half-table-target.mjs";
import {
  bytesAt,
  loopDisk,
  mkfsAndMount,
  queueAttribute,
  ramDisk,
  run,
  runBeside,
  statistics,
  verify,
  withDevice,
} from "./support.mjs";

const MIB = 1 << 20;
const FOLDER = "/run/ublk-test-folder";

/** Runs `use` with a file of 64 MiB on an ext4 of its own. */
async function withFile(use) {
  const disk = ramDisk(128);
  mkdirSync(FOLDER, { recursive: true });
  run("mkfs.ext4", "-q", disk);
  run("mount", disk, FOLDER);
  try {
    run("fallocate", "-l", "64M", `${FOLDER}/file`);
    await use(`${FOLDER}/file`);
  } finally {
    run("umount", FOLDER);
  }
}

/** Whether this kernel has zero copy, and a device; told of a device that has asked for it. */
async function zeroCopyOf(id) {
  const control = await UblkControl.open();
  try {
    const { features } = await control.deviceInfo(id);
    const [needed, isOn] = [UblkFeature.AUTO_BUF_REG | UblkFeature.BATCH_IO, features];
    assert.is((isOn & UblkFeature.AUTO_BUF_REG) !== 0, (control.features & needed) === needed);
    return (isOn & UblkFeature.AUTO_BUF_REG) !== 0;
  } finally {
    control.close();
  }
}

async function failure(options) {
  try {
    await (await UblkDevice.start(options)).stop();
  } catch (error) {
    return error;
  }
  throw new Error("it started");
}

test("over a RAM disk: fio's checks, a file system, and the same bytes below", async () => {
  const disk = ramDisk(320);
  await withDevice({ target: fileTarget({ path: disk }) }, async ({ path }) => {
    await verify(path, 16);
    await mkfsAndMount(path, "xfs");
    await runBeside("cmp", "-n", String(32 * MIB), path, disk);
  });
});

test("the disk below is taken exclusively, and given back", async () => {
  const disk = ramDisk(16);
  const target = fileTarget({ path: disk });
  await withDevice({ target }, async () => {
    const error = await failure({ target });
    assert.equal([error.code, error.errno], ["BACKING_BUSY", 16]);
    assert.is.not(spawnSync("mkfs.ext4", ["-q", disk]).status, 0);
  });
  run("mkfs.ext4", "-q", disk);
});

test("over a loop device with sectors of 4096 bytes: its limits, fio's checks, ext4", async () => {
  const disk = loopDisk(128);
  try {
    await withDevice({ target: fileTarget({ path: disk.path }) }, async ({ path }) => {
      assert.is(queueAttribute(path, "logical_block_size"), "4096");
      for (const name of ["rotational", "discard_granularity", "write_cache", "fua"]) {
        assert.is(queueAttribute(path, name), queueAttribute(disk.path, name), name);
      }
      await mkfsAndMount(path, "ext4");
    });
  } finally {
    disk.end();
  }
});

test("zero copy where the kernel has it: users align their memory as the disk below wants it", async () => {
  const disk = loopDisk(128);
  const target = fileTarget({ path: disk.path });
  try {
    await withDevice({ target, zeroCopy: true }, async ({ id, path }) => {
      if (!(await zeroCopyOf(id))) return;
      assert.is(queueAttribute(path, "dma_alignment"), queueAttribute(disk.path, "dma_alignment"));
      await mkfsAndMount(path, "ext4");
    });
  } finally {
    disk.end();
  }
});

test("zero copy where the kernel has it, and no place for pages of every second request", async () => {
  const disk = ramDisk(320);
  const plain = fileTarget({ path: disk });
  if (!(await withDevice({ target: plain, zeroCopy: true }, ({ id }) => zeroCopyOf(id)))) return;
  const target = halfTableTarget({ path: disk });
  await withDevice({ target, zeroCopy: true }, async ({ path }) => {
    await verify(path, 16);
    await mkfsAndMount(path, "xfs");
    await runBeside("cmp", "-n", String(32 * MIB), path, disk);
  });
});

test("over a regular file: fio's checks, then holes where it was discarded", async () => {
  await withFile(async (file) => {
    await withDevice({ target: fileTarget({ path: file }) }, async ({ path }) => {
      assert.is(queueAttribute(path, "write_cache"), "write back");
      await verify(path, 16);
      await runBeside(
        "sh",
        "-c",
        `head -c ${8 * MIB} /dev/urandom | dd status=none of=${path} bs=1M oflag=direct iflag=fullblock`,
      );
      const before = statSync(file).blocks;
      await runBeside("blkdiscard", "-o", String(MIB), "-l", String(4 * MIB), path);
      // The file system may take a block or two to describe the hole.
      assert.ok(before - statSync(file).blocks > (4 * MIB) / 512 - 64, "no hole");
      await runBeside("blkdiscard", "-z", "-o", String(6 * MIB), "-l", String(MIB), path);
      assert.ok(bytesAt(path, MIB, 4 * MIB).every((byte) => byte === 0));
      assert.ok(bytesAt(path, 6 * MIB, MIB).every((byte) => byte === 0));
      assert.not(bytesAt(path, 5 * MIB, MIB).every((byte) => byte === 0));
      await runBeside("cmp", path, file);
    });
    assert.is(statSync(file).size, 64 * MIB);
  });
});

test("flushes and forced writes reach the disk below as such", async () => {
  // zero delay, a write cache, and counters of what arrives
  run("modprobe", "null_blk", "nr_devices=0");
  const config = "/sys/kernel/config/nullb/below";
  spawnSync("mount", ["-t", "configfs", "configfs", "/sys/kernel/config"]);
  const set = Object.entries({ size: 64, memory_backed: 1, discard: 1, cache_size: 8, power: 1 })
    .map(([name, value]) => `echo ${value} >${config}/${name}`)
    .join(" && ");
  run("sh", "-c", `mkdir ${config} && ${set}`);
  try {
    await withDevice({ target: fileTarget({ path: "/dev/below" }) }, async ({ path }) => {
      for (const name of ["write_cache", "fua"]) {
        assert.is(queueAttribute(path, name), queueAttribute("/dev/below", name), name);
      }
      const before = statistics("/dev/below");
      const write = [
        "status=none",
        "if=/dev/zero",
        `of=${path}`,
        "bs=4096",
        "count=10",
        "oflag=direct",
      ];
      await runBeside("dd", ...write);
      assert.is(statistics("/dev/below").flushes, before.flushes);
      await runBeside("dd", ...write, "conv=fsync");
      assert.ok(statistics("/dev/below").flushes > before.flushes, "no flush arrived");
      const flushes = statistics("/dev/below").flushes;
      await runBeside("dd", ...write.slice(0, -1), "oflag=direct,dsync");
      const forced = queueAttribute(path, "fua") === "1";
      assert.ok(forced || statistics("/dev/below").flushes >= flushes + 10);
      await runBeside("blkdiscard", "-l", String(MIB), path);
      assert.ok(statistics("/dev/below").discards > before.discards, "no discard arrived");
    });
  } finally {
    run("rmdir", config);
  }
});

test("a read-only target cannot be written", async () => {
  const disk = ramDisk(16);
  await withDevice({ target: fileTarget({ path: disk, readOnly: true }) }, ({ path }) => {
    const dd = spawnSync("dd", ["if=/dev/zero", `of=${path}`, "bs=4096", "count=1"]);
    assert.is.not(dd.status, 0);
    bytesAt(path, 0, 4096);
  });
});

test("a device over a read-only disk is read-only", async () => {
  const disk = ramDisk(16);
  run("blockdev", "--setro", disk);
  await withDevice({ target: fileTarget({ path: disk }) }, ({ path }) => {
    assert.is(run("blockdev", "--getro", path).trim(), "1");
  });
  run("blockdev", "--setrw", disk);
});

test("an I/O error below is an I/O error above, and the device continues", async () => {
  const disk = ramDisk(16);
  const table = "0 2048 linear /dev/ram0 0\n2048 2048 error\n4096 4096 linear /dev/ram0 4096";
  run("sh", "-c", `modprobe dm-mod; printf '${table}' | DM_DISABLE_UDEV=1 dmsetup create broken`);
  try {
    await withDevice({ target: fileTarget({ path: "/dev/mapper/broken" }) }, ({ path }) => {
      bytesAt(path, 0, 4096);
      assert.throws(() => bytesAt(path, MIB, 4096), /EIO/);
      bytesAt(path, 2 * MIB, 4096);
    });
  } finally {
    run("sh", "-c", "DM_DISABLE_UDEV=1 dmsetup remove broken");
    void disk;
  }
});

test("bad targets leave no device behind", async () => {
  ramDisk(16);
  for (const [path, code] of [
    ["/no/such/file", "BACKING_NOT_FOUND"],
    ["/run", "BACKING_UNSUPPORTED"],
    ["/dev/null", "BACKING_UNSUPPORTED"],
    ["/dev/loop0", "BACKING_UNSUPPORTED"],
  ]) {
    assert.is((await failure({ target: fileTarget({ path }) })).code, code, path);
  }
  const target = fileTarget({ path: "/dev/ram0" });
  for (const options of [{ queueDepth: 0 }, { maxIoBytes: 1000 }, { id: 0.5 }]) {
    const error = await failure({ target, ...options });
    assert.equal([error.code, error.errno], ["CONTROL_FAILED", 22]);
  }
  assert.equal(listDeviceIds(), []);
});

test.run();
