import type { ControlError } from "@blksnap/api";
import { EngineError } from "@blksnap/engine";
import { EACCES, EIO, EPERM } from "@blksnap/errors";
import { UblkError } from "@blksnap/ublk";
import { UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { carriedError, errorFrom } from "../../../data-plane/dist/carried-error.js";
import { asControlError } from "../../dist/system/errors.js";

const EROFS = 30;

/** As a message between threads does. */
const carry = (error: unknown): Error => errorFrom(structuredClone(carriedError(error)));

test("an error from a reactor keeps its class, code and errno", () => {
  for (const error of [
    new EngineError("MAP_TOO_LARGE", "a map of 3 TiB"),
    new UblkError("QUEUE_FAILED", "cannot map the queue", 12),
    new UblkError("QUEUE_FAILED", "for an unknown reason"),
    new UringError("MAP_FAILED", "cannot map the area", 12),
    Object.assign(new Error("no space"), { code: "ENOSPC", errno: -28 }),
    new RangeError("out of range"),
  ]) {
    const carried = carry(error) as NodeJS.ErrnoException;
    const { name, message, code, errno } = error as NodeJS.ErrnoException;
    assert.equal(
      [carried.name, carried.message, carried.code, carried.errno],
      [name, message, code, errno],
    );
  }
  assert.is(carry("thrown text").message, "thrown text");
});

test("clients get a reactor's failure with the code of the catalogue", () => {
  const told = (error: unknown) => asControlError(carry(error)) as ControlError;
  assert.is(told(new EngineError("MAP_TOO_LARGE", "a map")).code, "OUT_OF_MEMORY");
  const full = told(new UringError("REACTOR_FULL", "no room for more registered files", 24));
  assert.equal([full.code, full.errnoName], ["REACTOR_FULL", "EMFILE"]);
  const failed = told(new UblkError("QUEUE_FAILED", "cannot map the queue", 12));
  assert.equal([failed.code, failed.errnoName], ["UBLK_FAILED", "ENOMEM"]);
});

test("a device that may not be opened has not failed", () => {
  const nameOf = (errno: number) =>
    (asControlError(new UblkError("BACKING_FAILED", "cannot open /dev/x", errno)) as ControlError)
      .code;
  assert.equal([EACCES, EPERM].map(nameOf), ["DEVICE_NOT_PERMITTED", "DEVICE_NOT_PERMITTED"]);
  assert.equal([EROFS, EIO].map(nameOf), ["DEVICE_READ_ONLY", "DEVICE_FAILED"]);
});

test.run();
