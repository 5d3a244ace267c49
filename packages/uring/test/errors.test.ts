import { constants } from "node:os";
import { errnoName, errnoNumber, UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("an errno has its name, from either sign", () => {
  assert.is(errnoName(16), "EBUSY");
  assert.is(errnoName(-2), "ENOENT");
  assert.is(errnoName(530), "errno 530");
  assert.is(errnoName(41), "errno 41");
  assert.is(errnoName(15), "ENOTBLK");
});

test("each number that the system knows has one name, and each name leads back to its number", () => {
  const names = new Map<number, string>();
  for (const [name, number] of Object.entries(constants.errno)) {
    assert.is(errnoNumber(name), number, name);
    assert.is(errnoNumber(errnoName(number)), number, name);
    assert.is(names.get(number) ?? errnoName(-number), errnoName(number));
    names.set(number, errnoName(number));
  }
  assert.is(new Set(names.values()).size, names.size);
  assert.is(errnoName(constants.errno.EWOULDBLOCK), "EAGAIN");
  assert.is(errnoName(constants.errno.ENOTSUP), "EOPNOTSUPP");
  assert.is(errnoNumber("ENOSUCHNAME"), undefined);
});

test("an error carries code, positive errno, message and cause", () => {
  const cause = new Error("below");
  const error = new UringError("MAP_FAILED", "cannot map", -12, cause);
  assert.instance(error, Error);
  assert.is(error.name, "UringError");
  assert.is(error.code, "MAP_FAILED");
  assert.is(error.errno, 12);
  assert.is(error.message, "cannot map (ENOMEM)");
  assert.is(error.cause, cause);
  assert.is(new UringError("RING_CLOSED", "closed").message, "closed");
});

test.run();
