/** A take waits for its originals to be synced, and for none for ever. */
import { closeSync } from "node:fs";
import { createMemoryFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { syncAll } from "../../dist/snapshot/sync-all.js";

const LONG_MS = 600_000;

async function failureOf(work: Promise<void>): Promise<NodeJS.ErrnoException | undefined> {
  return work.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error,
  );
}

test("files are synced, all of them, and one that fails is told", async () => {
  const files = ["one", "other"].map((name) => createMemoryFile(name));
  await syncAll(files, LONG_MS);
  for (const fd of files) closeSync(fd);
  const failure = await failureOf(syncAll([-1], LONG_MS));
  assert.ok(failure !== undefined);
  const synced: number[] = [];
  await syncAll([3, 4], LONG_MS, async (fd) => void synced.push(fd));
  assert.equal(synced, [3, 4]);
});

test("one that does not answer fails in time, whatever the others do", async () => {
  const hangs = (fd: number): Promise<void> =>
    fd === 4 ? new Promise(() => undefined) : Promise.resolve();
  const failure = await failureOf(syncAll([3, 4], 20, hangs));
  assert.is(failure?.code, "ETIMEDOUT");
  // What it answers in the end is no error of anybody.
  let answer = (_error: Error): void => undefined;
  const late = (): Promise<void> =>
    new Promise((_, reject) => {
      answer = reject;
    });
  assert.is((await failureOf(syncAll([3], 20, late)))?.code, "ETIMEDOUT");
  answer(new Error("failed at last"));
  await new Promise(setImmediate);
});

test.run();
