/** A null target with faults on demand, for the scenarios. */
import { writeFileSync } from "node:fs";
import { GCProfiler } from "node:v8";
import { memoryParams } from "../dist/targets/null.js";

const READ_WRITE = 1;

/**
 * @param fault "open": cannot be opened; "throw": every second request throws; "die": the first write
 * ends the thread; "keep": the first write is never answered; "mute": nothing is; "count": garbage collections between two
 * numbers of requests are counted and written to `report`; "allocate": the same, with one object made
 * per request
 */
export function faultyTarget(fault, more = {}) {
  return { module: new URL(import.meta.url), options: { fault, ...more } };
}

class FaultyTarget {
  constructor(queue, options) {
    this.queue = queue;
    this.options = options;
    this.served = 0;
    this.profiler = new GCProfiler();
    this.made = [];
  }

  queueIo(tag) {
    const { queue } = this;
    const { fault } = this.options;
    const op = queue.op(tag);
    this.served++;
    if (fault === "count" || fault === "allocate") this.count(tag, fault === "allocate");
    else if (fault === "throw" && this.served % 2 === 0) throw new Error("defect of the target");
    else if (fault === "mute") return;
    else if (fault === "die" && op === READ_WRITE) process.exit(9);
    else if (fault === "keep" && op === READ_WRITE) return;
    queue.complete(tag, op <= READ_WRITE ? queue.sectors(tag) << 9 : 0);
  }

  count(tag, allocate) {
    const { from, to, report } = this.options;
    if (allocate) this.made[tag] = { tag, served: this.served };
    if (this.served === from) this.profiler.start();
    if (this.served !== to) return;
    const collections = this.profiler.stop().statistics.length;
    writeFileSync(report, JSON.stringify({ collections, requests: to - from }));
  }

  close() {}
}

export const target = {
  describe: () => memoryParams(64 << 20),
  open(options, queue) {
    if (options.fault === "open") throw new Error("cannot be opened");
    return new FaultyTarget(queue, options);
  },
};
