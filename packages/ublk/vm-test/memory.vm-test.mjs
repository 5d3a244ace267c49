/** Null and memory targets: what the device looks like, and that it keeps what it was given. */
import { closeSync, openSync, readFileSync, readSync, statSync, writeSync } from "node:fs";
import { release } from "node:os";
import {
  featureNames,
  listDeviceIds,
  memoryTarget,
  nullTarget,
  UblkControl,
  UblkDevice,
} from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  bytesAt,
  mkfsAndMount,
  queueAttribute,
  runBeside,
  verify,
  withDevice,
} from "./support.mjs";

const MIB = 1 << 20;

/** Of this kernel and those before it all bits have names. */
const NEWEST_KNOWN = [7, 3];

test("the kernel's features are known by name", async () => {
  const control = await UblkControl.open();
  const names = featureNames(control.features);
  assert.ok(names.includes("USER_RECOVERY") && names.includes("USER_COPY"), names.join());
  const bits = control.features.toString(2).replaceAll("0", "").length;
  assert.is(names.length, bits, "a feature bit that is not told");
  const [major, minor] = release().split(".").map(Number);
  const isKnown =
    major < NEWEST_KNOWN[0] || (major === NEWEST_KNOWN[0] && minor <= NEWEST_KNOWN[1]);
  const nameless = names.filter((name) => name.startsWith("BIT_"));
  if (isKnown) assert.equal(nameless, []);
  control.close();
});

test("the parameters are those in sysfs", async () => {
  await withDevice(
    { target: nullTarget({ capacityBytes: 8 * MIB }), maxIoBytes: 65_536 },
    ({ path }) => {
      const expected = {
        logical_block_size: "512",
        physical_block_size: "4096",
        minimum_io_size: "4096",
        optimal_io_size: "4096",
        rotational: "0",
        write_cache: "write through",
        fua: "0",
        max_hw_sectors_kb: "64",
        discard_granularity: "4096",
        discard_max_bytes: String(16 * MIB),
        write_zeroes_max_bytes: String(16 * MIB),
      };
      const seen = Object.keys(expected).map((name) => [name, queueAttribute(path, name)]);
      assert.equal(Object.fromEntries(seen), expected);
      assert.is(readFileSync(`/sys/block/${path.slice(5)}/ro`, "utf8").trim(), "0");
      assert.ok(statSync(path).isBlockDevice());
    },
  );
});

test("a number can be asked for, and only one device gets it", async () => {
  const target = nullTarget({ capacityBytes: MIB });
  await withDevice({ target, id: 7 }, async (device) => {
    assert.is(device.path, "/dev/ublkb7");
    const second = await UblkDevice.start({ target, id: 7 }).then(
      () => "started",
      (error) => `${error.code} ${error.errno}`,
    );
    assert.is(second, "CONTROL_FAILED 17");
    assert.equal(listDeviceIds(), [7]);
  });
});

test("a memory target passes fio's checks", async () => {
  await withDevice({ target: memoryTarget({ capacityBytes: 32 * MIB }) }, ({ path }) =>
    verify(path, 16),
  );
});

for (const kind of ["ext4", "xfs"]) {
  test(`${kind} is made, mounted and found again`, async () => {
    const target = memoryTarget({ capacityBytes: 320 * MIB });
    await withDevice({ target }, ({ path }) => mkfsAndMount(path, kind));
  });
}

test("the last sector of an odd capacity is there, and nothing behind it", async () => {
  const capacityBytes = MIB + 512 * 3;
  await withDevice({ target: memoryTarget({ capacityBytes }) }, ({ path }) => {
    const fd = openSync(path, "r+");
    const last = capacityBytes - 512;
    assert.is(writeSync(fd, Buffer.alloc(512, 0x6c), 0, 512, last), 512);
    assert.throws(() => writeSync(fd, Buffer.alloc(512), 0, 512, capacityBytes), /ENOSPC/);
    assert.is(readSync(fd, Buffer.alloc(512), 0, 512, capacityBytes), 0);
    closeSync(fd);
    assert.ok(bytesAt(path, last, 512).every((byte) => byte === 0x6c));
  });
});

test("requests around the largest one arrive whole", async () => {
  const maxIoBytes = 32_768;
  const target = memoryTarget({ capacityBytes: MIB });
  await withDevice({ target, maxIoBytes, queueDepth: 2 }, async ({ path }) => {
    for (const length of [maxIoBytes - 512, maxIoBytes, maxIoBytes + 512, 3 * maxIoBytes]) {
      const file = "/dev/shm/pattern";
      const dd = `dd status=none bs=${length} count=1`;
      await runBeside("sh", "-c", `head -c ${length} /dev/urandom >${file}`);
      await runBeside("sh", "-c", `${dd} if=${file} of=${path} oflag=direct,seek_bytes seek=4096`);
      await runBeside(
        "sh",
        "-c",
        `${dd} if=${path} iflag=direct,skip_bytes skip=4096 | cmp - ${file}`,
      );
    }
  });
});

test("discarded and zeroed ranges of a memory target read as zeroes", async () => {
  await withDevice({ target: memoryTarget({ capacityBytes: 4 * MIB }) }, async ({ path }) => {
    const fill = `tr '\\0' x </dev/zero | dd status=none iflag=fullblock bs=1M count=4 of=${path} oflag=direct`;
    await runBeside("sh", "-c", fill);
    await runBeside("blkdiscard", "-o", "1048576", "-l", "65536", path);
    await runBeside("blkdiscard", "-z", "-o", "2097152", "-l", "4608", path);
    const zero = (offset, length) => bytesAt(path, offset, length).every((byte) => byte === 0);
    assert.ok(zero(MIB, 65_536));
    assert.ok(zero(2 * MIB, 4608));
    for (const offset of [MIB - 512, MIB + 65_536, 2 * MIB - 512, 2 * MIB + 4608]) {
      assert.ok(
        bytesAt(path, offset, 512).every((byte) => byte === 120),
        String(offset),
      );
    }
  });
});

test("twenty devices come and go, one after the other and together", async () => {
  const target = memoryTarget({ capacityBytes: MIB });
  for (let i = 0; i < 12; i++) await withDevice({ target, queueDepth: 16 }, () => undefined);
  const devices = await Promise.all(
    Array.from({ length: 8 }, () => UblkDevice.start({ target, queueDepth: 4 })),
  );
  assert.is(new Set(devices.map(({ id }) => id)).size, 8);
  await Promise.all(devices.map((device) => device.stop()));
  assert.equal(listDeviceIds(), []);
});

test.run();
