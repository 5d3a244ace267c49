/** Threads outlive their pool, unless they are at work for it, and never keep the process. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ChunkPool } from "../dist/chunk-pool.js";

/** Counts threads that are started meanwhile. */
async function started(work: () => Promise<void>): Promise<number> {
  let count = 0;
  const onWorker = (): void => {
    count++;
  };
  process.on("worker", onWorker);
  await work();
  process.off("worker", onWorker);
  return count;
}

async function digestAtOnce(pool: ChunkPool, times: number): Promise<void> {
  const all = Array.from({ length: times }, () => pool.digest(new Uint8Array(4096).fill(1)));
  const [first, ...others] = await Promise.all(all);
  for (const { hash } of others) assert.is(hash, first?.hash);
}

test("the next pool has the threads of the last one", async () => {
  const one = new ChunkPool(2);
  assert.is(await started(() => digestAtOnce(one, 4)), 2);
  await one.close();
  const next = new ChunkPool(3);
  assert.is(await started(() => digestAtOnce(next, 4)), 1);
  await next.close();
});

/** Takes all threads that wait for a pool. */
async function holdAll(): Promise<ChunkPool> {
  const pool = new ChunkPool(8);
  await digestAtOnce(pool, 8);
  return pool;
}

test("threads of a pool that is open are not another one's", async () => {
  const [one, other] = [await holdAll(), new ChunkPool(2)];
  assert.is(await started(() => digestAtOnce(other, 2)), 2);
  await Promise.all([one.close(), other.close()]);
});

test("a busy thread ends with its pool, and its caller gets an error", async () => {
  const all = await holdAll();
  const pool = new ChunkPool(1);
  const ended = pool.digest(new Uint8Array(2 ** 25).fill(1)).then(
    () => "in time",
    (error) => error.code,
  );
  await pool.close();
  assert.ok(["in time", "INTERNAL"].includes(await ended));
  const next = new ChunkPool(1);
  assert.is(await started(() => digestAtOnce(next, 1)), 1);
  await Promise.all([all.close(), next.close()]);
});

test("a pool that was closed starts no threads", async () => {
  const pool = new ChunkPool(1);
  await pool.close();
  const isRefused = async (work: Promise<unknown>): Promise<void> =>
    assert.is(await work.catch((error) => error.code), "INTERNAL");
  const none = await started(async () => {
    await isRefused(pool.digest(new Uint8Array(4096)));
    await isRefused(pool.unpack(new Uint8Array(4096), 4096));
  });
  assert.is(none, 0);
});

test("a process ends while threads wait for a pool", () => {
  const path = JSON.stringify(join(import.meta.dirname, "../dist/chunk-pool.js"));
  const code = `import(${path}).then(async ({ ChunkPool }) => {
    const pool = new ChunkPool(1);
    await pool.digest(new Uint8Array(4096));
    await pool.close();
    console.log(process.getActiveResourcesInfo().filter((name) => !/Wrap/.test(name)).length);
  })`;
  const said = execFileSync(process.execPath, ["--eval", code], { encoding: "utf8" });
  assert.is(said, "0\n");
});

test.run();
