import type { BackingFile } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PARAMETER_DEFAULTS } from "../dist/parameters.js";
import { geometryOf } from "../dist/tracker/geometry.js";

function geometry(capacityBytes: number) {
  const params = { capacityBytes, logicalBlockBytes: 512, ioMinBytes: 512, readOnly: false };
  const backing = { path: "/dev/sdb", kind: "block", params } as unknown as BackingFile;
  return geometryOf(backing, PARAMETER_DEFAULTS);
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

test.run();
