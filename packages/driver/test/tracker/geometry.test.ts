import type { BackingFile } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PARAMETER_DEFAULTS } from "../../dist/parameters.js";
import { LEGACY_SLOT_BYTES } from "../../dist/snapshot/area-setup.js";
import { geometryOf } from "../../dist/tracker/geometry.js";

function geometry(capacityBytes: number, parameters = PARAMETER_DEFAULTS) {
  const params = { capacityBytes, logicalBlockBytes: 512, ioMinBytes: 512, readOnly: false };
  const backing = { path: "/dev/sdb", kind: "block", params } as unknown as BackingFile;
  return geometryOf(backing, parameters);
}

function codeOf(capacityBytes: number): string {
  try {
    return String(geometry(capacityBytes).capacityBytes);
  } catch (error) {
    return (error as { code: string }).code;
  }
}

test("devices that cannot be tracked for their size are refused by name", () => {
  assert.is(codeOf(2 ** 18 - 512), "DEVICE_TOO_SMALL");
  assert.is(codeOf(2 ** 53 - 512), String(2 ** 53 - 512));
  for (const bytes of [2 ** 53, 2 ** 53 + 512, 2 ** 60, Number.NaN]) {
    assert.is(codeOf(bytes), "DEVICE_TOO_LARGE", String(bytes));
  }
});

test("with larger chunks as the default, small devices and old records are what they were", () => {
  const parameters = { ...PARAMETER_DEFAULTS, chunkMinimumShift: 20 };
  const { capacityBytes, chunkShift } = geometry(2 ** 18, parameters);
  assert.equal([capacityBytes, chunkShift], [2 ** 18, 20]);
  assert.throws(() => geometry(2 ** 18 - 512, parameters), /less than 262144/);
  assert.is(LEGACY_SLOT_BYTES, 2 ** 18);
});

test.run();
