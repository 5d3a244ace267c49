import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  MappedMemory,
  prepareReadFixed,
  prepareWriteFixed,
  Ring,
  SqeFlag,
  type UringError,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { at, popCompletions, withFolder } from "./support.js";

const EBADF = 9;
const EFAULT = 14;

/** A ring with one file of 4096 bytes `a` at place 3 and one buffer of 8192 bytes at place 2. */
function withRegistered(use: (ring: Ring, memory: MappedMemory, path: string) => void): void {
  withFolder((folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "a".repeat(4096));
    const ring = new Ring({ entries: 8 });
    const memory = MappedMemory.anonymous(8192);
    ring.registerFiles(8);
    ring.registerBuffers(4);
    const fd = openSync(path, "r+");
    ring.setFile(3, fd);
    ring.setBuffer(2, memory.address, memory.lengthBytes);
    closeSync(fd);
    use(ring, memory, path);
    ring.close();
    memory.unmap();
  });
}

function read(ring: Ring, memory: MappedMemory, file: number, buffer: number, from = 0): number {
  const to = at(memory, from);
  prepareReadFixed(ring, file, buffer, ...to, 4096, 0, 0, 1, 0, SqeFlag.FIXED_FILE);
  return popCompletions(ring, 1)[0].result;
}

test("a registered file stays open and a registered buffer is read into and written from", () => {
  withRegistered((ring, memory, path) => {
    assert.is(read(ring, memory, 3, 2), 4096);
    const bytes = new Uint8Array(memory.buffer);
    assert.is(bytes[4095], 97);
    bytes.fill(98, 4096);
    const from = at(memory, 4096);
    prepareWriteFixed(ring, 3, 2, ...from, 4096, 0, 0, 0, 1, 0, SqeFlag.FIXED_FILE);
    assert.is(popCompletions(ring, 1)[0].result, 4096);
    assert.is(readFileSync(path, "utf8"), "b".repeat(4096));
  });
});

test("an emptied place refuses with -EBADF or -EFAULT", () => {
  withRegistered((ring, memory) => {
    ring.setBuffer(2, 0, 0);
    assert.is(read(ring, memory, 3, 2), -EFAULT);
    ring.setBuffer(2, memory.address, memory.lengthBytes);
    ring.setFile(3, -1);
    assert.is(read(ring, memory, 3, 2), -EBADF);
  });
});

test("an address outside of the registered buffer is refused", () => {
  withRegistered((ring, memory) => assert.is(read(ring, memory, 3, 2, 4097), -EFAULT));
});

test("a place can be filled again", () => {
  withRegistered((ring, memory, path) => {
    writeFileSync(`${path}2`, "c".repeat(4096));
    const fd = openSync(`${path}2`, "r");
    ring.setFile(3, fd);
    closeSync(fd);
    assert.is(read(ring, memory, 3, 2), 4096);
    assert.is(new Uint8Array(memory.buffer)[0], 99);
  });
});

test("a place outside of the table is an error with a code", () => {
  withRegistered((ring, memory) => {
    for (const call of [
      () => ring.setFile(8, 0),
      () => ring.setBuffer(4, memory.address, 4096),
      () => ring.registerFiles(8),
    ]) {
      assert.throws(
        call,
        (error: UringError) => error.code === "REGISTER_FAILED" && error.errno > 0,
      );
    }
  });
});

test.run();
