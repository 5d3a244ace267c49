import { statSync } from "node:fs";
import { deviceNumber, keyOfNumber, parseDevice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("device numbers split as the kernel joins them", () => {
  assert.equal(deviceNumber(0x0801), { major: 8, minor: 1 });
  const many = 259 * 256 + 5 + (1 << 20);
  assert.equal(deviceNumber(many), { major: 259, minor: 261 });
  const { rdev } = statSync("/dev/null");
  assert.is(keyOfNumber(rdev), "1:3");
});

test("a text of sysfs is a number only as a whole", () => {
  assert.equal(parseDevice("259:261\n"), { major: 259, minor: 261 });
  for (const text of ["", "259", "259:", "a:1", "8:1 8:2", null, undefined]) {
    assert.is(parseDevice(text), undefined);
  }
});

test.run();
