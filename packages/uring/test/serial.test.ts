import { retry, Serial } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("one operation after another, also after one that fails", async () => {
  const serial = new Serial();
  const seen: string[] = [];
  const step = (name: string) => async () => {
    seen.push(`${name} begins`);
    await new Promise((resolve) => setImmediate(resolve));
    seen.push(`${name} ends`);
    if (name === "a") throw new Error("a failed");
    return name;
  };
  const first = serial.run(step("a")).catch((error: Error) => error.message);
  const second = serial.run(step("b"));
  assert.equal(await Promise.all([first, second]), ["a failed", "b"]);
  assert.equal(seen, ["a begins", "a ends", "b begins", "b ends"]);
});

test("with a time limit, an operation that hangs does not block the next", async () => {
  const serial = new Serial();
  let end: (value: string) => void = () => undefined;
  const hanging = serial.run(() => new Promise<string>((resolve) => (end = resolve)), 1);
  // The limit keeps no process alive.
  const alive = setInterval(() => undefined, 1_000);
  assert.is(await serial.run(async () => "next"), "next");
  end("late");
  assert.is(await hanging, "late");
  clearInterval(alive);
});

test("operations that may run together do, up to their number, and whatever comes next waits", async () => {
  const serial = new Serial();
  const running = new Set<string>();
  const ends = new Map<string, () => void>();
  const step = (name: string) => () => {
    running.add(name);
    return new Promise<void>((resolve) => {
      ends.set(name, () => {
        running.delete(name);
        resolve();
      });
    });
  };
  const nowRunning = async (): Promise<string> => {
    await new Promise((resolve) => setImmediate(resolve));
    return [...running].sort().join("");
  };
  const turns = [serial.run(step("a"))];
  for (const name of ["b", "c", "d"]) turns.push(serial.runTogether(step(name), 2));
  turns.push(serial.run(step("e")), serial.runTogether(step("f"), 2));
  for (const [expected, ending] of [
    ["a", "a"],
    ["bc", "c"],
    ["b", "b"],
    ["d", "d"],
    ["e", "e"],
    ["f", "f"],
  ] as const) {
    assert.is(await nowRunning(), expected);
    ends.get(ending)?.();
  }
  await Promise.all(turns);
});

test("temporary failures are retried; permanent ones, or those past the limit, fail", async () => {
  let attempts = 0;
  const attempt = async (): Promise<number> => {
    attempts++;
    if (attempts < 3) throw new Error("busy");
    return attempts;
  };
  const options = { isPassing: () => true, deadlineMs: Number.POSITIVE_INFINITY, intervalMs: 1 };
  assert.is(await retry(attempt, options), 3);
  for (const [more, least] of [
    [{ isPassing: () => false }, 1],
    [{ deadlineMs: Number.NEGATIVE_INFINITY }, 1],
  ] as const) {
    attempts = 0;
    const error = await retry(attempt, { ...options, ...more }).catch((reason: Error) => reason);
    assert.is((error as Error).message, "busy");
    assert.is(attempts, least);
  }
});

test.run();
