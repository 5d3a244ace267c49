import { randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { copyParts } from "../dist/part-copy.js";
import type { Part } from "../dist/parts.js";
import type { ImageReader } from "../dist/source.js";
import { Sums } from "../dist/sums.js";

const test = suite("part-copy");
const PART_BYTES = 4096;

function imageOf(content: Buffer): ImageReader {
  return {
    read: async (data, offsetBytes) => {
      data.set(content.subarray(offsetBytes, offsetBytes + data.length));
    },
    sync: async () => undefined,
    emptyRanges: async () => [],
    close: async () => undefined,
  };
}

/** Copies a device in parts of a page. Returns how many of them the caller's thread has written. */
async function copied(count: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-parts-"));
  const path = join(folder, "copy");
  const fd = openSync(path, "w");
  try {
    const content = randomBytes(count * PART_BYTES);
    const parts = Array.from({ length: count }, (_, index): Part => {
      return { offsetBytes: index * PART_BYTES, lengthBytes: PART_BYTES, isDiscarded: false };
    });
    let written = 0;
    const target = {
      ...{ path, headBytes: 0, files: { fd, directFd: undefined } },
      wrote: () => undefined,
      write: async (data: Uint8Array, offsetBytes: number) => {
        writeSync(fd, data, 0, data.length, offsetBytes);
        written++;
      },
      writeZeros: () => Promise.reject(new Error("nothing is zeros")),
    };
    const sums = new Sums(content.length);
    assert.is(await copyParts(parts, imageOf(content), target, sums, {}), content.length);
    assert.ok(readFileSync(path).equals(content));
    return written;
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

test("a thread writes small parts that are many, and the caller's thread those that are few", async () => {
  assert.is(await copied(1023), 1023);
  assert.is(await copied(1024), 0);
});

test.run();
