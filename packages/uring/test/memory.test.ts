import { closeSync, ftruncateSync } from "node:fs";
import { createMemoryFile, MappedMemory, PAGE_BYTES, type UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isMapped } from "./support.js";

test("anonymous memory is zero, whole pages, page aligned", () => {
  const memory = MappedMemory.anonymous(5000);
  assert.is(memory.lengthBytes, 8192);
  assert.is(memory.address % PAGE_BYTES, 0);
  assert.ok(new Uint8Array(memory.buffer).every((byte) => byte === 0));
  memory.unmap();
});

test("unmapping empties the views and gives the address range back", () => {
  const memory = MappedMemory.anonymous(64 << 20);
  const view = new Uint32Array(memory.buffer);
  assert.ok(isMapped(memory.address));
  memory.unmap();
  assert.is(view.length, 0);
  assert.is(memory.buffer.byteLength, 0);
  assert.is(view[0], undefined);
  assert.not(isMapped(memory.address));
  memory.unmap();
});

test("discarded pages read as zeroes, and only they", () => {
  const memory = MappedMemory.anonymous(3 * PAGE_BYTES);
  const bytes = new Uint8Array(memory.buffer).fill(1);
  memory.discard(PAGE_BYTES, PAGE_BYTES);
  assert.is(bytes[PAGE_BYTES - 1], 1);
  assert.is(bytes[PAGE_BYTES], 0);
  assert.is(bytes[2 * PAGE_BYTES], 1);
  assert.throws(() => memory.discard(2 * PAGE_BYTES, 2 * PAGE_BYTES), /EINVAL/);
  memory.unmap();
});

test("a mapped file has what others write into it", () => {
  const fd = createMemoryFile("test");
  ftruncateSync(fd, 2 * PAGE_BYTES);
  const one = MappedMemory.file(fd, 0, 2 * PAGE_BYTES);
  const other = MappedMemory.file(fd, PAGE_BYTES, PAGE_BYTES, "read");
  closeSync(fd);
  new Uint8Array(one.buffer)[PAGE_BYTES] = 7;
  assert.is(new Uint8Array(other.buffer)[0], 7);
  one.unmap();
  other.unmap();
});

test("what cannot be mapped is an error with code and errno", () => {
  const fd = createMemoryFile("test");
  for (const [call, errno] of [
    [() => MappedMemory.file(-1, 0, PAGE_BYTES), 9],
    [() => MappedMemory.file(fd, 1, PAGE_BYTES), 22],
  ] as const) {
    assert.throws(
      call,
      (error: UringError) => error.code === "MAP_FAILED" && error.errno === errno,
    );
  }
  for (const call of [
    () => MappedMemory.anonymous(0),
    () => MappedMemory.anonymous(2 ** 32 + 1),
    () => MappedMemory.file(fd, -4096, PAGE_BYTES),
    () => MappedMemory.file(fd, 0, Number.NaN),
  ]) {
    assert.throws(call, /assertion failed/);
  }
  closeSync(fd);
});

test.run();
