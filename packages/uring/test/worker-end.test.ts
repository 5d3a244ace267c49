import { readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { eventually, openDescriptors } from "./support.js";

const MODULE = new URL("./workers/leave-open.js", import.meta.url);

/** Runs the worker until it ended in the given way. */
async function endWorker(way: "exit" | "throw" | "terminate"): Promise<void> {
  const worker = new Worker(MODULE, { workerData: way });
  worker.on("error", (error) => assert.match((error as Error).message, "on purpose"));
  const exited = new Promise((resolve) => worker.once("exit", resolve));
  // Not events.once(): it takes the error that is expected here for a failure.
  await new Promise((resolve) => worker.once("message", resolve));
  if (way === "terminate") await worker.terminate();
  await exited;
}

function threads(): number {
  return Number(/^Threads:\s+(\d+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

for (const way of ["exit", "throw", "terminate"] as const) {
  test(`a worker that ends by ${way} takes its rings and watchers with it`, async () => {
    await endWorker(way);
    const before = { descriptors: openDescriptors(), threads: threads() };
    for (let i = 0; i < 5; i++) await endWorker(way);
    // Threads of the kernel's for a ring end a little after it.
    await eventually("descriptors are closed", () => openDescriptors() <= before.descriptors);
    await eventually("threads have ended", () => threads() <= before.threads);
  });
}

test.run();
