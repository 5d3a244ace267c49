import { ControlError } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Operations } from "../../dist/operations/serialised.js";

async function failure(work: Promise<unknown>): Promise<ControlError> {
  try {
    await work;
  } catch (error) {
    return error as ControlError;
  }
  throw new Error("it did not fail");
}

test("a time-out names the operation that it ended, and keeps what to do", async () => {
  const operations = new Operations({ identity: async () => "block:1:1" });
  const text = 'reactor 0 did not answer "dropArea" in 30000 ms';
  const late = new ControlError("NO_ANSWER", text, { hint: "Try again" });
  const error = await failure(
    operations.onSnapshot("snapshot_destroy of", "abc", () => Promise.reject(late)),
  );
  assert.is(error.code, "NO_ANSWER");
  assert.is(error.hint, "Try again");
  assert.is(
    error.message,
    'snapshot_destroy of abc: reactor 0 did not answer "dropArea" in 30000 ms',
  );
});

test("a path that leads to another device when its turn comes is looked up again", async () => {
  let identity = "block:1:1";
  const operations = new Operations({ identity: async () => identity });
  let end: () => void = () => undefined;
  const first = operations.onDevices(
    "detach of",
    ["/dev/a"],
    () =>
      new Promise<void>((resolve) => {
        end = resolve;
      }),
  );
  await new Promise((resolve) => setTimeout(resolve, 5));
  const seen: string[] = [];
  const second = operations.onDevices("attach of", ["/dev/a"], async () => {
    seen.push(identity);
    assert.equal(
      operations.locks.running.map(({ what }) => what),
      ["attach of /dev/a"],
    );
  });
  await new Promise((resolve) => setTimeout(resolve, 5));
  identity = "block:2:2";
  end();
  await first;
  await second;
  assert.equal(seen, ["block:2:2"]);
});

test.run();
