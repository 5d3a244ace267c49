import { existsSync, readdirSync } from "node:fs";
import {
  fileTarget,
  listDeviceIds,
  memoryTarget,
  nullTarget,
  UblkControl,
  UblkDevice,
} from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isError } from "./support.js";

const hasUblk = existsSync("/dev/ublk-control");

async function failure(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

test("without the module the error names it and how to load it; with it, features are read", async () => {
  const before = openDescriptors();
  if (hasUblk) {
    const control = await UblkControl.open();
    assert.ok(control.features > 0);
    control.close();
  } else {
    const error = await failure(UblkControl.open());
    assert.ok(isError("UBLK_MISSING", 2, "modprobe ublk_drv")(error), String(error));
    assert.equal(listDeviceIds(), []);
  }
  assert.is(openDescriptors(), before);
});

test("an invalid target is refused before any device is created", async () => {
  const before = openDescriptors();
  for (const target of [
    nullTarget({ capacityBytes: 0 }),
    nullTarget({ capacityBytes: 1000 }),
    memoryTarget({ capacityBytes: Number.NaN }),
    memoryTarget({ capacityBytes: -4096 }),
  ]) {
    const error = await failure(UblkDevice.start({ target }));
    assert.ok(isError("CONTROL_FAILED", 22, "capacity")(error), String(error));
  }
  const missing = fileTarget({ path: "/no/such/file" });
  const error = await failure(UblkDevice.start({ target: missing }));
  assert.ok(isError("BACKING_NOT_FOUND", 2, "/no/such/file")(error), String(error));
  assert.is(openDescriptors(), before);
});

test.run();
