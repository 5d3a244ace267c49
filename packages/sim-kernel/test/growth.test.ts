/** A device whose disk becomes larger under its users: UPDATE_SIZE of the simulated driver. */
import { readFileSync } from "node:fs";
import { SimMachine } from "@blksnap/sim-kernel";
import { UblkError } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { addDisk, DISK_BYTES, Server } from "./server.js";

/** Bits up to those of Linux 6.16. */
const WITH_UPDATE_SIZE = 0x7ff;
const GROWN_BYTES = DISK_BYTES + 2 ** 16;

async function withServer(
  ublkFeatures: number,
  code: (machine: SimMachine, server: Server) => Promise<void>,
): Promise<void> {
  const machine = new SimMachine({ seed: 1, ublkFeatures });
  try {
    addDisk(machine).grow(GROWN_BYTES);
    const server = new Server(machine);
    await machine.run(machine.start(() => server.start({ capacityBytes: DISK_BYTES })));
    await code(machine, server);
    assert.equal(machine.violations, []);
  } finally {
    await machine.close();
  }
}

const refusal = (error: unknown): unknown => error;

test("a device grows in use: what opened it before reaches the new part", async () => {
  await withServer(WITH_UPDATE_SIZE, async (machine, server) => {
    const user = machine.user("/dev/ublkb0");
    const bytes = new Uint8Array(4096).fill(7);
    const before = await machine.run(user.write(DISK_BYTES, bytes).catch(refusal));
    assert.ok(before instanceof Error, "beyond its end");
    assert.ok(server.control.canUpdateSize);
    await machine.run(server.device.grow(GROWN_BYTES));
    assert.is(user.device.capacityBytes, GROWN_BYTES);
    const sectors = Number(readFileSync("/sys/class/block/ublkb0/size", "utf8"));
    assert.is(sectors * 512, GROWN_BYTES);
    await machine.run(user.write(DISK_BYTES, bytes));
    assert.equal(await machine.run(user.read(DISK_BYTES, bytes.length)), bytes);
    assert.equal(server.errors, []);
  });
});

test("a driver of before 6.16 refuses it, and the device stays as it is", async () => {
  await withServer(0x3ff, async (machine, server) => {
    assert.not(server.control.canUpdateSize);
    const error = await machine.run(server.device.grow(GROWN_BYTES).catch(refusal));
    assert.ok(error instanceof UblkError);
    assert.equal([error.code, error.errno], ["CONTROL_FAILED", 95]);
    assert.is(machine.user("/dev/ublkb0").device.capacityBytes, DISK_BYTES);
  });
});

test("a device that is not started has no size to change", async () => {
  await withServer(WITH_UPDATE_SIZE, async (machine, server) => {
    const error = await machine.run(server.control.updateSize(9, GROWN_BYTES).catch(refusal));
    assert.ok(error instanceof UblkError);
    assert.is(error.errno, 19);
  });
});

test.run();
