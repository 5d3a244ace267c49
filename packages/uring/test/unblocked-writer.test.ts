/** Writing to what a reader has to make room in. */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { socketPair, unblockedWriter } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const PART = Buffer.alloc(4096, "f");

test("a blocking socket takes what fits into its buffer, and then nothing until it is read", () => {
  const [socket, reader] = socketPair();
  const write = unblockedWriter(socket);
  let sent = 0;
  const fill = (): void => {
    for (;;) sent += write(PART);
  };
  assert.throws(fill, (error: { code: string; errnoName: string }) => {
    assert.equal([error.code, error.errnoName], ["SYSTEM_CALL_FAILED", "EAGAIN"]);
    return true;
  });
  assert.ok(sent > 0);
  const bytes = Buffer.alloc(sent);
  for (let at = 0; at < sent; ) at += readSync(reader, bytes, { offset: at });
  assert.is(write(Buffer.from("again")), 5);
  assert.is(readSync(reader, bytes), 5);
  assert.is(bytes.toString("utf8", 0, 5), "again");
  closeSync(reader);
  assert.throws(() => write(PART), /EPIPE/);
  closeSync(socket);
});

test("a file is written directly", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-writer-"));
  const path = join(folder, "file");
  writeFileSync(path, "");
  const fd = openSync(path, "a");
  const write = unblockedWriter(fd);
  assert.equal([write(Buffer.from("one ")), write(Buffer.from("two"))], [4, 3]);
  assert.is(readFileSync(path, "utf8"), "one two");
  closeSync(fd);
  assert.throws(() => unblockedWriter(fd)(PART), /EBADF/);
  rmSync(folder, { recursive: true });
});

test.run();
