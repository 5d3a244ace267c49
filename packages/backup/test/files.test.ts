/** Files that are made of pieces: whole and durable, whatever their number and however short a write is. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as zlib from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ChunkPool } from "../dist/chunk-pool.js";
import { CHUNK_BYTES } from "../dist/chunks.js";
import { lengthOfContent, piecesFrom, realFiles, wholeOf } from "../dist/files.js";
import { storedPieces } from "../dist/zstd-frame.js";

const folder = mkdtempSync(join(tmpdir(), "blksnap-files-"));
test.after(() => rmSync(folder, { recursive: true }));

test("a file holds its pieces in order", async () => {
  const lengths = [0, 1, 5, 2 ** 20, 3, 0, 2 ** 20 + 1, 2 ** 19, 2 ** 19, 7, 0];
  for (const count of [0, 1, 2, 5, lengths.length]) {
    const pieces = lengths.slice(0, count).map((length) => randomBytes(length));
    const path = join(folder, `pieces-${count}`);
    await realFiles.create(path, pieces);
    assert.ok(readFileSync(path).equals(Buffer.concat(pieces)), `${count} pieces`);
    assert.is(lengthOfContent(pieces), wholeOf(pieces).length);
  }
});

test("after a short write the rest of the pieces follows", () => {
  const pieces = [randomBytes(3), randomBytes(0), randomBytes(4), randomBytes(1)];
  const whole = Buffer.concat(pieces);
  for (let bytes = 0; bytes <= whole.length; bytes++) {
    const rest = piecesFrom(pieces, bytes);
    assert.ok(Buffer.concat(rest).equals(whole.subarray(bytes)), `after ${bytes} bytes`);
    // A write of nothing would be repeated without an end.
    assert.is(rest.length === 0, bytes === whole.length);
  }
});

test("what can hardly be compressed is stored from its own memory", async () => {
  // Node's own zstd does it quickly, and is not asked in advance.
  if ("zstdCompressSync" in zlib) return;
  const pool = new ChunkPool(1);
  const content = new Uint8Array(randomBytes(CHUNK_BYTES).buffer.slice(0, CHUNK_BYTES));
  const before = Buffer.from(content);
  const { data, packed } = await pool.pack(content);
  assert.ok(before.equals(data));
  assert.ok(packed.filter(({ buffer }) => buffer === data.buffer).length >= CHUNK_BYTES / 2 ** 17);
  const whole = Buffer.from(wholeOf(packed));
  assert.ok(whole.equals(wholeOf(storedPieces(before))));
  const hashed = await pool.pack(data, true);
  assert.is(hashed.packed.length, 1);
  assert.ok(whole.equals(hashed.packed[0]!));
  await pool.close();
});

test.run();
