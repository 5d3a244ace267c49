import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MappedMemory, prepareNop, prepareRead, prepareWrite, Ring, SqeFlag } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { at, popCompletions, resultsByUser, withFolder } from "./support.js";

const EBADF = 9;
const ECANCELED = 125;
const READ = 1;
const WRITE = 2;

/** Prepares a copy of 4096 bytes by a read that is linked to a write. */
function prepareCopy(ring: Ring, memory: MappedMemory, from: number, to: number): void {
  ring.reserve(2);
  prepareRead(ring, from, ...at(memory), 4096, 0, 0, READ, 0, SqeFlag.IO_LINK);
  prepareWrite(ring, to, ...at(memory), 4096, 0, 0, 0, WRITE, 0, 0);
}

function copy(ring: Ring, from: number, to: number): Map<number, number> {
  const memory = MappedMemory.anonymous(4096);
  prepareCopy(ring, memory, from, to);
  const results = resultsByUser(popCompletions(ring, 2));
  memory.unmap();
  return results;
}

function withFiles(
  bytes: number,
  use: (ring: Ring, from: number, to: number, path: string) => void,
) {
  withFolder((folder) => {
    writeFileSync(join(folder, "from"), "f".repeat(bytes));
    const from = openSync(join(folder, "from"), "r");
    const to = openSync(join(folder, "to"), "w");
    const ring = new Ring({ entries: 8 });
    use(ring, from, to, join(folder, "to"));
    ring.close();
    closeSync(from);
    closeSync(to);
  });
}

test("a write that is linked to a read writes what was read", () => {
  withFiles(4096, (ring, from, to, path) => {
    const results = copy(ring, from, to);
    assert.is(results.get(READ), 4096);
    assert.is(results.get(WRITE), 4096);
    assert.is(readFileSync(path, "utf8"), "f".repeat(4096));
  });
});

test("a short read cancels the write, and both complete", () => {
  withFiles(1000, (ring, from, to, path) => {
    const results = copy(ring, from, to);
    assert.is(results.get(READ), 1000);
    assert.is(results.get(WRITE), -ECANCELED);
    assert.is(readFileSync(path).length, 0);
  });
});

test("a failed read cancels the write, and both complete", () => {
  withFiles(4096, (ring, _from, to, path) => {
    const results = copy(ring, -1, to);
    assert.is(results.get(READ), -EBADF);
    assert.is(results.get(WRITE), -ECANCELED);
    assert.is(readFileSync(path).length, 0);
  });
});

test("a chain is not torn apart where the ring is nearly full", () => {
  withFiles(1000, (ring, from, to) => {
    for (let prepared = 0; prepared <= 8; prepared++) {
      for (let i = 0; i < prepared; i++) prepareNop(ring, 100 + i, 0, 0);
      const memory = MappedMemory.anonymous(4096);
      prepareCopy(ring, memory, from, to);
      const results = resultsByUser(popCompletions(ring, prepared + 2));
      assert.is(results.get(WRITE), -ECANCELED);
      memory.unmap();
    }
    assert.throws(() => ring.reserve(9));
  });
});

test.run();
