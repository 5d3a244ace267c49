import { closeSync, openSync } from "node:fs";
import {
  MappedMemory,
  PromiseRing,
  prepareNop,
  prepareRead,
  prepareTimeout,
  type UringError,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";
import { at, openDescriptors, runChild } from "./support.js";

const ETIME = 62;
const ECANCELED = 125;

function submitTimeout(ring: PromiseRing, milliseconds: number, signal?: AbortSignal) {
  const memory = MappedMemory.anonymous(4096);
  new BigInt64Array(memory.buffer).set([0n, BigInt(milliseconds) * 1_000_000n]);
  const prepare = (target: Parameters<typeof prepareTimeout>[0], low: number, high: number) =>
    prepareTimeout(target, ...at(memory), low, high);
  return ring.submit(prepare, memory, signal);
}

/** A read that never completes. */
function submitEndlessRead(ring: PromiseRing, signal?: AbortSignal): Promise<number> {
  const memory = MappedMemory.anonymous(4096);
  const fd = native.eventFd(0, 0o2000000);
  return ring.submit(
    (target, low, high) => prepareRead(target, fd, ...at(memory), 8, 0, 0, low, high, 0),
    memory,
    signal,
  );
}

test("operations end with their own results, in their own order", async () => {
  const ring = new PromiseRing();
  const order: string[] = [];
  const slow = submitTimeout(ring, 30).then((result) => order.push(`slow ${result}`));
  const fast = submitTimeout(ring, 5).then((result) => order.push(`fast ${result}`));
  assert.is(ring.inFlight, 2);
  await Promise.all([slow, fast]);
  assert.equal(order, [`fast ${-ETIME}`, `slow ${-ETIME}`]);
  assert.is(ring.inFlight, 0);
  ring.close();
});

test("more operations than the ring has entries all complete", async () => {
  const ring = new PromiseRing(4);
  const results = await Promise.all(
    Array.from({ length: 1000 }, () =>
      ring.submit((target, low, high) => prepareNop(target, low, high, 0)),
    ),
  );
  assert.ok(results.every((result) => result === 0));
  ring.close();
});

test("operations that the kernel executes on another thread complete, too", async () => {
  const ring = new PromiseRing();
  const memory = MappedMemory.anonymous(4096);
  const fd = openSync("/proc/self/maps", "r");
  const ASYNC = 16;
  const result = await ring.submit((target, low, high) =>
    prepareRead(target, fd, ...at(memory), 4096, 0, 0, low, high, ASYNC),
  );
  assert.ok(result > 0, String(result));
  closeSync(fd);
  memory.unmap();
  ring.close();
});

test("an aborted operation ends with -ECANCELED, before or after it began", async () => {
  const ring = new PromiseRing();
  const abort = new AbortController();
  const before = submitEndlessRead(ring, abort.signal);
  const other = submitTimeout(ring, 20);
  abort.abort();
  assert.is(await before, -ECANCELED);
  assert.is(await submitEndlessRead(ring, abort.signal), -ECANCELED);
  assert.is(await other, -ETIME);
  ring.close();
});

test("closing cancels what is in flight and leaves no descriptor behind", async () => {
  const before = openDescriptors();
  const ring = new PromiseRing();
  const results = [submitTimeout(ring, 60_000), submitTimeout(ring, 60_000)];
  ring.close();
  ring.close();
  assert.equal(await Promise.all(results), [-ECANCELED, -ECANCELED]);
  assert.throws(
    () => ring.submit(() => undefined),
    (error: UringError) => error.code === "RING_CLOSED",
  );
  assert.is(openDescriptors(), before);
});

test("a preparation that throws leaves nothing in flight", () => {
  const ring = new PromiseRing();
  assert.throws(() => {
    void ring.submit(() => {
      throw new Error("no");
    });
  }, /no/);
  assert.is(ring.inFlight, 0);
  ring.close();
});

test("the process lives while something is in flight, and no longer", () => {
  const child = runChild(`
    import { MappedMemory, PromiseRing, prepareTimeout, low32, high32 } from "@blksnap/uring";
    const ring = new PromiseRing();
    const memory = MappedMemory.anonymous(4096);
    new BigInt64Array(memory.buffer).set([0n, 100_000_000n]);
    const { address } = memory;
    const prepare = (target, low, high) =>
      prepareTimeout(target, low32(address), high32(address), low, high);
    ring.submit(prepare, memory).then((result) => console.log(result));
  `);
  assert.is(child.output.trim(), String(-ETIME));
  assert.is(child.status, 0, child.errors);
});

test.run();
