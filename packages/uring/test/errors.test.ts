import { UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

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
