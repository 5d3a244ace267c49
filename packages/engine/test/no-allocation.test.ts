/** A million requests through a warm engine do not start the garbage collector once. */
import { PerformanceObserver, performance } from "node:perf_hooks";
import {
  CbtMap,
  DiffArea,
  DiffAreaMap,
  type EngineIo,
  RequestOp,
  TrackerEngine,
} from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { GENERATION } from "./fake-host.js";

const BATCH = 32;
const REQUESTS = 1_000_000;
const TRIES = 5;
const capacityBytes = 2 ** 37;
const geometry = { capacityBytes, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 };

/** Notes questions, answers in batches, allocates nothing. */
class BatchHost implements EngineIo {
  readonly engine: TrackerEngine;
  completed = 0;
  private readonly asked: Int32Array = new Int32Array(3 * BATCH);
  private readonly counts: Int32Array = new Int32Array(3);

  constructor() {
    const buffer = new ArrayBuffer(CbtMap.byteLength(capacityBytes, 16));
    this.engine = new TrackerEngine(geometry, this, {
      frontDepth: BATCH,
      imageDepth: BATCH,
      copyWindowBytes: 64 * 1024,
      copiesMax: 8,
      runsMax: 8,
      cbt: CbtMap.create(buffer, { capacityBytes, blockShift: 16, generation: GENERATION }),
    });
  }

  take(): void {
    const places = { count: BATCH, placeBytes: 4096 };
    const buffer = new ArrayBuffer(DiffAreaMap.byteLength(geometry, places));
    const area = new DiffArea(DiffAreaMap.create(buffer, geometry, undefined, true, places));
    area.grantSlots(0, 2 ** 24);
    this.engine.attachArea(area);
    this.engine.hold();
    this.engine.switchAndRelease();
  }

  answer(): void {
    const { engine, asked, counts } = this;
    while (counts[0] + counts[1] + counts[2] > 0) {
      if (counts[0] > 0) engine.onOriginalDone(asked[--counts[0]], 4096);
      if (counts[1] > 0) {
        const copy = asked[BATCH + --counts[1]];
        engine.onCopyRead(copy);
        engine.onCopyDone(copy, 0, 0);
      }
      if (counts[2] > 0) {
        const run = asked[2 * BATCH + --counts[2]];
        engine.onRunDone(run, engine.runs.lengthBytes[run]);
      }
    }
  }

  submitOriginal(tag: number): void {
    this.asked[this.counts[0]++] = tag;
  }
  submitKept(): void {}
  submitCopy(copy: number): void {
    this.asked[BATCH + this.counts[1]++] = copy;
  }
  submitRun(run: number): void {
    this.asked[2 * BATCH + this.counts[2]++] = run;
  }
  completeFront(): void {
    this.completed++;
  }
  completeImage(): void {
    this.completed++;
  }
  requestMapSlice(): void {}
  requestSlots(): void {}
  freeSlot(): void {}
  onWritesBlocked(): void {}
  onDrained(): void {}
  onAreaFault(): void {}
  onCopyLate(): void {}
  onRunLate(): void {}
  onStoreHung(): void {}
  onStoreAnswered(): void {}
  onAreaClosed(): void {}
}

function fronts(host: BatchHost, op: number, count: number, firstBlock: number, stride = 1): void {
  const { front } = host.engine;
  for (let done = 0; done < count; done += BATCH) {
    for (let tag = 0; tag < BATCH; tag++) {
      front.op[tag] = op;
      front.offsetBytes[tag] = (firstBlock + (done + tag) * stride) * 4096;
      front.lengthBytes[tag] = 4096;
      host.engine.submitFront(tag);
    }
    host.answer();
  }
}

function images(host: BatchHost, op: number, count: number, firstBlock: number): void {
  const { image } = host.engine;
  for (let done = 0; done < count; done += BATCH) {
    for (let tag = 0; tag < BATCH; tag++) {
      image.op[tag] = op;
      image.offsetBytes[tag] = (firstBlock + done + tag) * 4096 + 512;
      image.lengthBytes[tag] = 4096;
      host.engine.submitImage(tag);
    }
    host.answer();
  }
}

/** The number of collections during `work`. */
async function collections(work: () => void): Promise<number> {
  const starts: number[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) starts.push(entry.startTime);
  });
  globalThis.gc?.();
  await new Promise((done) => setTimeout(done, 20));
  observer.observe({ entryTypes: ["gc"] });
  const begin = performance.now();
  work();
  const end = performance.now();
  // Collections are reported in order: this one marks the end of all before it.
  globalThis.gc?.();
  while (!starts.some((start) => start > end)) await new Promise((done) => setTimeout(done, 5));
  observer.disconnect();
  return starts.filter((start) => start >= begin && start <= end).length;
}

const far = 2 ** 20;
/** No two of its writes form a sequence. */
const apart = (host: BatchHost, count: number): void =>
  fronts(host, RequestOp.WRITE, count, 8 * far, 3);
const workloads: [string, boolean, (host: BatchHost, count: number) => void][] = [
  ["front reads", false, (host, count) => fronts(host, RequestOp.READ, count, far)],
  ["front writes without a snapshot", false, (host, n) => fronts(host, RequestOp.WRITE, n, far)],
  ["first front writes with copies", true, (host, n) => fronts(host, RequestOp.WRITE, n, far)],
  ["first front writes beside their copies", true, (host, n) => apart(host, n)],
  ["front writes to saved blocks", true, (host, n) => fronts(host, RequestOp.WRITE, n, far)],
  ["image reads", true, (host, count) => images(host, RequestOp.READ, count, far)],
  ["image writes", true, (host, count) => images(host, RequestOp.WRITE, count, 2 * far)],
];

/** Runs all workloads on a new engine. Returns those that had collections. */
async function measure(): Promise<string[]> {
  const host = new BatchHost();
  const report: string[] = [];
  for (const [name, snapshot, work] of workloads) {
    if (snapshot && host.engine.area === null) host.take();
    const count = await collections(() => work(host, REQUESTS));
    if (count > 0) report.push(`${name}: ${count} collections`);
  }
  assert.is(host.completed, workloads.length * REQUESTS);
  assert.ok(host.engine.stats.snapshot().copiesBehind >= REQUESTS);
  return report;
}

test("a million requests of each kind allocate nothing", async () => {
  // Several rounds: the compiler needs to have seen all kinds of requests together.
  for (let round = 0; round < 3; round++) {
    const warm = new BatchHost();
    for (const [, snapshot, work] of workloads) {
      if (snapshot && warm.engine.area === null) warm.take();
      work(warm, 100_000);
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  // The compiler has its own thread, which a busy machine delays, and code that is not compiled yet allocates. Compiled
  // code that allocates does so in every round.
  let report = await measure();
  for (let tries = 1; tries < TRIES && report.length > 0; tries++) report = await measure();
  assert.equal(report, []);
});

test("the measurement detects one small object per request", async () => {
  let last: { index: number } | null = null;
  const count = await collections(() => {
    for (let index = 0; index < REQUESTS; index++) last = { index };
  });
  assert.ok(count > 0 && last !== null);
});

test.run();
