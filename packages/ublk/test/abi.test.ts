import { featureNames, UblkFeature } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ControlCommand, IoCommand } from "../dist/abi.js";

/** `_IOR` or `_IOWR` of `asm-generic/ioctl.h`. */
function ioctlNumber(direction: "R" | "RW", number: number, sizeBytes: number): number {
  const bits = direction === "R" ? 2 : 3;
  return ((bits << 30) | (sizeBytes << 16) | (0x75 << 8) | number) >>> 0;
}

test("control commands are ioctl numbers with 32 bytes", () => {
  const expected: Record<keyof typeof ControlCommand, number> = {
    GET_QUEUE_AFFINITY: ioctlNumber("R", 0x01, 32),
    GET_DEV_INFO: ioctlNumber("R", 0x02, 32),
    ADD_DEV: ioctlNumber("RW", 0x04, 32),
    DEL_DEV: ioctlNumber("RW", 0x05, 32),
    START_DEV: ioctlNumber("RW", 0x06, 32),
    STOP_DEV: ioctlNumber("RW", 0x07, 32),
    SET_PARAMS: ioctlNumber("RW", 0x08, 32),
    GET_PARAMS: ioctlNumber("R", 0x09, 32),
    START_USER_RECOVERY: ioctlNumber("RW", 0x10, 32),
    END_USER_RECOVERY: ioctlNumber("RW", 0x11, 32),
    GET_FEATURES: ioctlNumber("R", 0x13, 32),
    DEL_DEV_ASYNC: ioctlNumber("R", 0x14, 32),
    UPDATE_SIZE: ioctlNumber("RW", 0x15, 32),
  };
  assert.equal({ ...ControlCommand }, expected);
});

test("queue commands are ioctl numbers with 16 bytes", () => {
  assert.is(IoCommand.FETCH_REQ, ioctlNumber("RW", 0x20, 16));
  assert.is(IoCommand.COMMIT_AND_FETCH_REQ, ioctlNumber("RW", 0x21, 16));
});

test("features have one bit each, without gaps", () => {
  assert.equal(
    Object.values(UblkFeature),
    Object.values(UblkFeature).map((_, bit) => 1 << bit),
  );
});

test("feature names are those of the set bits", () => {
  assert.equal(featureNames(0x1fe), [
    "URING_CMD_COMP_IN_TASK",
    "NEED_GET_DATA",
    "USER_RECOVERY",
    "USER_RECOVERY_REISSUE",
    "UNPRIVILEGED_DEV",
    "CMD_IOCTL_ENCODE",
    "USER_COPY",
    "ZONED",
  ]);
  assert.equal(featureNames(0), []);
  const later = 2 ** 40 + 2 ** 31 + 2 ** 21 + UblkFeature.IO_DESC_SIZE;
  assert.equal(featureNames(later), ["IO_DESC_SIZE", "BIT_21", "BIT_31", "BIT_40"]);
});

test.run();
