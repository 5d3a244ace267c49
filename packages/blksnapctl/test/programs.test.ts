/** Programs of the system, and what is said of those that fail. */
import type { BlksnapClientError } from "@blksnap/client";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { outputOf, run, runInTime } from "../dist/programs.js";

async function failureOf(work: Promise<unknown>): Promise<BlksnapClientError> {
  try {
    await work;
  } catch (error) {
    return error as BlksnapClientError;
  }
  throw new Error("it did not fail");
}

test("a program that must succeed answers what it prints, or fails with what it has said", async () => {
  assert.is(await outputOf("sh", "-c", "echo one; echo two >&2"), "one\n");
  const { code, message } = await failureOf(outputOf("sh", "-c", "echo why >&2; exit 3"));
  assert.is(code, "MOUNT_FAILED");
  assert.match(message, /: why$/);
});

test("a missing program is named, with what to do", async () => {
  for (const missing of [outputOf("no-such-program"), run("no-such-program")]) {
    const { code, message, hint } = await failureOf(missing);
    assert.is(code, "MOUNT_FAILED");
    assert.match(message, "no-such-program");
    assert.is(hint, "Install no-such-program");
  }
});

test("the status of a program may say something", async () => {
  const outcome = await run("sh", "-c", "echo out; echo one >&2; echo two >&2; exit 2");
  assert.equal(outcome, { status: 2, out: "out\n", err: "one; two" });
});

test("a program that only reads is ended when it takes too long, and that is said", async () => {
  assert.equal(await runInTime("sh", ["-c", "exit 2"]), { status: 2, out: "", err: "" });
  const { code, message, hint } = await failureOf(runInTime("sleep", ["1000"], 50));
  assert.is(code, "MOUNT_FAILED");
  assert.is(message, "sleep did not end in 50 ms");
  assert.match(hint ?? "", "dmesg");
});

test.run();
