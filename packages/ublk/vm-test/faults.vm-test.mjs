/** Devices that are deleted under load, servers that die, targets that fail. */
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  addPartitions,
  listDeviceIds,
  memoryTarget,
  nullTarget,
  UblkControl,
  UblkDevice,
  UblkFeature,
  UblkState,
} from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { faultyTarget } from "./faulty-target.mjs";
import {
  begin,
  examplesDir,
  fioArgs,
  requestsInFlight,
  runBeside,
  until,
  untilNoDevice,
  withDevice,
} from "./support.mjs";

const MIB = 1 << 20;
/** Longer than what is done under it. */
const LOAD_S = 600;

function fioLoad(path, seconds) {
  const load = ["--ioengine=io_uring", "--iodepth=64", "--rw=randrw", "--bs=4k"];
  return begin("fio", ...fioArgs(path, ...load, "--time_based", `--runtime=${seconds}`));
}

test("a device stops under fio, which gets errors and ends", async () => {
  const device = await UblkDevice.start({ target: memoryTarget({ capacityBytes: 64 * MIB }) });
  const load = fioLoad(device.path, LOAD_S);
  await until(() => requestsInFlight(device.path) > 0, "fio does nothing");
  await device.stop();
  const { status } = await load.closed;
  assert.is.not(status, 0);
  await untilNoDevice();
});

test("a device stops while it is open, and its number is free when it is closed", async () => {
  const device = await UblkDevice.start({ target: nullTarget({ capacityBytes: MIB }) });
  const fd = openSync(device.path, "r");
  await device.stop();
  // An error, or the end of a device without capacity; the first pages are still in the page cache.
  let count = 0;
  try {
    count = readSync(fd, Buffer.alloc(4096), 0, 4096, MIB / 2);
  } catch (error) {
    assert.is(error.code, "EIO");
  }
  closeSync(fd);
  assert.is(count, 0);
  await untilNoDevice();
});

test("stopping twice, and at the same time, is stopping once", async () => {
  const device = await UblkDevice.start({ target: nullTarget({ capacityBytes: MIB }) });
  await Promise.all([device.stop(), device.stop()]);
  await device.stop();
  await device.ended;
  assert.equal(listDeviceIds(), []);
});

test("a device that another program deletes ends here", async () => {
  const device = await UblkDevice.start({ target: nullTarget({ capacityBytes: MIB }) });
  const control = await UblkControl.open();
  await control.stopDevice(device.id);
  await device.ended;
  await control.deleteDevice(device.id);
  await device.stop();
  control.close();
  assert.equal(listDeviceIds(), []);
});

/** Kills the server of a device under fio, waits or not, and deletes the device. */
async function killAndDelete(beforeDelete) {
  const server = begin(process.execPath, `${examplesDir}ram-disk.mjs`);
  const ready = () => listDeviceIds().length === 1 && existsSync("/dev/ublkb0");
  await until(ready, "the server did not start");
  const load = fioLoad("/dev/ublkb0", LOAD_S);
  await until(() => requestsInFlight("/dev/ublkb0") > 0, "fio does nothing");
  server.child.kill("SIGKILL");
  await server.closed;
  const control = await UblkControl.open();
  await beforeDelete(control);
  await control.deleteDevice(0);
  assert.is(await control.deviceInfo(0), undefined);
  control.close();
  assert.is.not((await load.closed).status, 0);
  await untilNoDevice();
}

test("a killed server leaves a dead device, which another process deletes", () =>
  killAndDelete(async (control) => {
    const state = async () => (await control.deviceInfo(0))?.state;
    await until(async () => (await state()) === UblkState.DEAD, "the device is not dead");
  }));

test("a device is deleted the moment after its server was killed", () =>
  killAndDelete(() => undefined));

test("exceptions of a target are I/O errors, and are reported", async () => {
  const errors = [];
  const onError = (error) => errors.push(error.message);
  const device = await UblkDevice.start({ target: faultyTarget("throw"), onError });
  let failed = 0;
  for (let i = 0; i < 10; i++) {
    const dd = ["bs=4k", "count=1", "iflag=direct", `skip=${i}`, "of=/dev/null"];
    const { status } = await begin("dd", `if=${device.path}`, ...dd).closed;
    if (status !== 0) failed++;
  }
  assert.ok(failed > 0);
  await device.stop();
  assert.ok(errors.length > 0 && errors.every((text) => text.includes("defect of the target")));
  await untilNoDevice();
});

test("a target that cannot be opened on its thread leaves nothing behind", async () => {
  const error = await UblkDevice.start({ target: faultyTarget("open") }).catch(
    (failure) => failure,
  );
  assert.is(error.code, "QUEUE_FAILED");
  assert.match(error.message, "cannot be opened");
  assert.equal(listDeviceIds(), []);
});

test("a thread that dies ends its device; the writer gets an error", async () => {
  const errors = [];
  const onError = (error) => errors.push(error.code);
  const device = await UblkDevice.start({ target: faultyTarget("die"), onError });
  const writer = begin(
    "dd",
    "if=/dev/zero",
    `of=${device.path}`,
    "bs=4k",
    "count=1",
    "oflag=direct",
  );
  await device.ended;
  assert.is.not((await writer.closed).status, 0);
  assert.equal(errors, ["QUEUE_FAILED"]);
  await device.stop();
  await untilNoDevice();
});

test("START_DEV without a server can be given up", async () => {
  const control = await UblkControl.open();
  const { id, maxIoBytes } = await control.addDevice({
    id: -1,
    queues: 1,
    queueDepth: 1,
    maxIoBytes: 65_536,
    features: 0,
    serverFlags: 0,
    serverFlagsHigh: 0,
  });
  const { target } = await import("../dist/targets/null.js");
  await control.setParams(id, target.describe({ capacityBytes: MIB }), maxIoBytes);
  const signal = AbortSignal.timeout(300);
  const error = await control.startDevice(id, signal).catch((failure) => failure);
  assert.is(error.code, "CONTROL_FAILED");
  assert.ok([4, 125].includes(error.errno), error.message);
  await control.deleteDevice(id);
  control.close();
  assert.equal(listDeviceIds(), []);
});

/** Kills a server that answers nothing as soon as its device is there, and deletes the device. */
async function killMute(features) {
  const program = new URL("mute-server.mjs", import.meta.url).pathname;
  const server = begin(process.execPath, program, String(features));
  await until(() => existsSync("/dev/ublkb0"), "the server did not start");
  server.child.kill("SIGKILL");
  const { signal } = await server.closed;
  assert.is(signal, "SIGKILL");
  const control = await UblkControl.open();
  await control.deleteDevice(0);
  control.close();
  await untilNoDevice();
}

// The kernel's own reading of the partition table would wait for an answer, and the end for it.
test("a server killed while its device starts ends, and so does the device", () => killMute(0));
test("the same with a device that would wait for the next server", () =>
  killMute(UblkFeature.USER_RECOVERY | UblkFeature.USER_RECOVERY_REISSUE));

test("a server killed in the middle of its stop, with a request inside, still ends", async () => {
  const program = new URL("keeping-server.mjs", import.meta.url).pathname;
  const server = begin(process.execPath, program);
  await once(server.child.stdout, "data");
  const writer = begin("dd", "if=/dev/zero", "of=/dev/ublkb0", "oflag=direct", "bs=4k", "count=1");
  await until(() => requestsInFlight("/dev/ublkb0") > 0, "nothing is written");
  server.child.kill("SIGUSR1");
  await sleep(1000);
  server.child.kill("SIGKILL");
  assert.is((await server.closed).signal, "SIGKILL");
  assert.is.not((await writer.closed).status, 0);
  const control = await UblkControl.open();
  await control.deleteDevice(0);
  control.close();
  await untilNoDevice();
});

test("partitions are there when a device has started, and go with it", async () => {
  const { fileTarget } = await import("@blksnap/ublk");
  const table = Buffer.alloc(512);
  const parts = [
    [2048, 4096],
    [6144, 2048],
  ];
  for (const [index, [start, sectors]] of parts.entries()) {
    const entry = table.subarray(446 + 16 * index);
    entry[4] = 0x83;
    entry.writeUInt32LE(start, 8);
    entry.writeUInt32LE(sectors, 12);
  }
  table.writeUInt16LE(0xaa55, 510);
  const file = "/dev/shm/partitioned";
  writeFileSync(file, table);
  truncateSync(file, 8 * MIB);
  await withDevice({ target: fileTarget({ path: file }) }, async ({ path }) => {
    const name = path.slice("/dev/".length);
    for (const [index, [start, sectors]] of parts.entries()) {
      const part = `${name}p${index + 1}`;
      const attribute = (of) => Number(readFileSync(`/sys/block/${name}/${part}/${of}`, "utf8"));
      assert.equal([attribute("start"), attribute("size")], [start, sectors]);
      assert.ok(existsSync(`/dev/${part}`));
    }
    // Once more is not an error.
    await addPartitions(path);
  });
  assert.not(existsSync("/dev/ublkb0p1"));
  rmSync(file);
});

test("a process that exits without stopping ends, and leaves a device to delete", async () => {
  const text = `
    import { nullTarget, UblkDevice } from "@blksnap/ublk";
    await UblkDevice.start({ target: nullTarget({ capacityBytes: 1 << 20 }), id: 3 });
    process.exit(5);`;
  const { writeFileSync } = await import("node:fs");
  const file = new URL("./exits-at-once.tmp.mjs", import.meta.url).pathname;
  writeFileSync(file, text);
  const { status } = await begin(process.execPath, file).closed;
  assert.is(status, 5);
  await runBeside("rm", file);
  const control = await UblkControl.open();
  await control.deleteDevice(3);
  control.close();
  await untilNoDevice();
});

test("two devices serve at once, one over the other", async () => {
  const { fileTarget } = await import("@blksnap/ublk");
  await withDevice({ target: memoryTarget({ capacityBytes: 8 * MIB }) }, async (below) => {
    await runBeside(
      "sh",
      "-c",
      `head -c ${8 * MIB} /dev/urandom >/dev/shm/data && dd status=none if=/dev/shm/data of=${below.path} bs=1M oflag=direct`,
    );
    const above = await UblkDevice.start({ target: fileTarget({ path: below.path }) });
    await runBeside("cmp", above.path, "/dev/shm/data");
    await above.stop();
  });
});

test.run();
