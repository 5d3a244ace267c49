import { closeSync, ftruncateSync, readFileSync } from "node:fs";
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

test("V8 counts memory as its own from the first use of its bytes on", () => {
  const bytes = 64 << 20;
  const counted = (): boolean => process.memoryUsage().external >= bytes;
  const memory = MappedMemory.anonymous(bytes);
  assert.ok(memory.populate(0, PAGE_BYTES));
  assert.not(counted());
  assert.is(new Uint8Array(memory.buffer)[PAGE_BYTES], 0);
  assert.ok(counted());
  assert.is(memory.buffer, memory.buffer);
  memory.unmap();
  assert.not(counted());
});

test("memory whose bytes were never used has none after unmapping", () => {
  const memory = MappedMemory.anonymous(PAGE_BYTES);
  memory.unmap();
  assert.not(isMapped(memory.address));
  assert.is(memory.buffer.byteLength, 0);
  assert.not(memory.populate(0, PAGE_BYTES));
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

/** Of x86-64 and arm64 with pages of 4 KiB: nothing in a file's memory is larger. */
const FOLIO_MAX_BYTES = 2 ** 21;

test("a file that can be written to lies in folios as its offsets do, whatever was mapped before", () => {
  const fd = createMemoryFile("test");
  ftruncateSync(fd, 4 * FOLIO_MAX_BYTES);
  const pages = FOLIO_MAX_BYTES / PAGE_BYTES;
  const [lengths, offsets] = [
    [1, 3, pages - 1, pages, pages + 5],
    [0, 1, pages - 1, pages, 7],
  ];
  const mapped = lengths.flatMap((length) =>
    offsets.map((offset) => {
      const [at, lengthBytes] = [offset * PAGE_BYTES, length * PAGE_BYTES - 100];
      const memory = MappedMemory.file(fd, at, lengthBytes);
      assert.is((memory.address - at) % FOLIO_MAX_BYTES, 0, `${length} pages at ${offset}`);
      new Uint8Array(memory.buffer).set([length, offset]);
      assert.is(new Uint8Array(memory.buffer, lengthBytes - 1)[0], 0);
      return memory;
    }),
  );
  for (const memory of mapped) memory.unmap();
  closeSync(fd);
});

/** Address space of this process, in bytes. */
function mappedBytes(): number {
  const [, kib] = /^VmSize:\s*(\d+)/m.exec(readFileSync("/proc/self/status", "latin1")) ?? [];
  return Number(kib) * 1024;
}

test("address space that was reserved to place a file is freed", () => {
  const fd = createMemoryFile("test");
  ftruncateSync(fd, 3 * PAGE_BYTES);
  const [before, times] = [mappedBytes(), 1000];
  const kept = Array.from({ length: times }, () => MappedMemory.file(fd, 0, 3 * PAGE_BYTES));
  assert.throws(() => MappedMemory.file(fd, 1, 3 * PAGE_BYTES), /EINVAL/);
  assert.ok(mappedBytes() - before < (times * FOLIO_MAX_BYTES) / 2);
  for (const memory of kept) memory.unmap();
  closeSync(fd);
});

test("a failed mapping is an error with code and errno", () => {
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
