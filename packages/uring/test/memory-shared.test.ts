import { once } from "node:events";
import { closeSync, ftruncateSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { createMemoryFile, MappedMemory, PAGE_BYTES } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const ADDITIONS = 500_000;

test("two threads see one file, and Atomics hold between their mappings", async () => {
  const fd = createMemoryFile("shared");
  ftruncateSync(fd, PAGE_BYTES);
  const memory = MappedMemory.file(fd, 0, PAGE_BYTES);
  const workerData = { fd, additions: ADDITIONS };
  const module = new URL("./workers/shared-counter.js", import.meta.url);
  const workers = [new Worker(module, { workerData }), new Worker(module, { workerData })];
  await Promise.all(workers.map((worker) => once(worker, "exit")));
  assert.is(new Int32Array(memory.buffer)[0], 2 * ADDITIONS);
  memory.unmap();
  closeSync(fd);
});

test.run();
