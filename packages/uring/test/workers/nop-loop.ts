/**
 * Keeps a batch of NOPs going round in a reactor, and says how many garbage collections the second
 * part of them took. With `allocate` each completion makes an object that outlives it.
 */
import { GCProfiler } from "node:v8";
import { parentPort, workerData } from "node:worker_threads";
import { assert, prepareNop, Reactor, type ReactorWorkerData } from "@blksnap/uring";

const BATCH = 32;
const WARM_UP = 200_000;

assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;
const { wakeFd, options } = workerData as ReactorWorkerData;
const { operations, allocate } = options as { operations: number; allocate: boolean };
const profiler = new GCProfiler();
const kept: object[] = [];
let completed = 0;

const reactor = new Reactor({
  wakeFd,
  port,
  onMessage: () => undefined,
  onError: (error) => {
    throw error;
  },
});
const handler = reactor.addHandler({
  onCompletion(data) {
    completed++;
    if (allocate) kept[data] = { completed };
    if (completed === WARM_UP) profiler.start();
    if (completed === WARM_UP + operations) reactor.stop();
    else prepareNop(reactor.ring, data, handler, 0);
  },
});
for (let i = 0; i < BATCH; i++) prepareNop(reactor.ring, i, handler, 0);
reactor.run();
const collections = profiler.stop().statistics.length;
port.postMessage({ collections, operations, enterCalls: reactor.ring.enterCalls });
port.close();
