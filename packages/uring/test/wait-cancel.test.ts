import { writeSync } from "node:fs";
import {
  MappedMemory,
  prepareCancel,
  preparePoll,
  prepareRead,
  prepareTimeout,
  Ring,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";
import { at, popCompletions, resultsByUser } from "./support.js";

const ENOENT = 2;
const ETIME = 62;
const ECANCELED = 125;
const POLLIN = 1;

function eventFd(): number {
  return native.eventFd(0, 0o2000000);
}

test("a poll completes once the descriptor is readable", () => {
  const ring = new Ring({ entries: 8 });
  const fd = eventFd();
  preparePoll(ring, fd, POLLIN, 1, 0);
  ring.submit();
  assert.is(ring.ready(), 0);
  writeSync(fd, new BigUint64Array([1n]));
  assert.is(popCompletions(ring, 1)[0].result, POLLIN);
  ring.close();
});

test("a timeout completes with -ETIME when its time has passed", () => {
  const ring = new Ring({ entries: 8 });
  const memory = MappedMemory.anonymous(4096);
  new BigInt64Array(memory.buffer).set([0n, 20_000_000n]);
  const start = performance.now();
  prepareTimeout(ring, ...at(memory), 1, 0);
  assert.is(popCompletions(ring, 1)[0].result, -ETIME);
  assert.ok(performance.now() - start >= 19);
  ring.close();
  memory.unmap();
});

test("a cancelled read ends with -ECANCELED, an unknown one is not found", () => {
  const ring = new Ring({ entries: 8 });
  const memory = MappedMemory.anonymous(4096);
  prepareRead(ring, eventFd(), ...at(memory), 8, 0, 0, 1, 7, 0);
  prepareCancel(ring, 1, 7, 2, 0);
  prepareCancel(ring, 1, 8, 3, 0);
  const results = resultsByUser(popCompletions(ring, 3));
  assert.is(results.get(1), -ECANCELED);
  assert.is(results.get(2), 0);
  assert.is(results.get(3), -ENOENT);
  ring.close();
  memory.unmap();
});

test.run();
