/** Parts that threads sum and write: with direct I/O if possible, otherwise without. */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ChunkPool } from "../dist/chunk-pool.js";
import { PartMemory, type Slot } from "../dist/part-memory.js";
import { PartQueue } from "../dist/part-queue.js";
import { canBeDirect, takeParts } from "../dist/part-writes.js";
import { failureOf, MIB } from "./fake-machine.js";

const BLOCK_BYTES = 65_536;
const { O_RDWR, O_CREAT, O_DIRECT, O_RDONLY, O_WRONLY } = constants;

interface World {
  folder: string;
  path: string;
  memory: PartMemory;
  pool: ChunkPool;
}

const test = suite<World>("part-writes");

test.before.each((world) => {
  world.folder = mkdtempSync(join(tmpdir(), "blksnap-parts-"));
  world.path = join(world.folder, "file");
  world.memory = new PartMemory();
  world.pool = new ChunkPool(2);
});

test.after.each(async ({ folder, pool }) => {
  await pool.close();
  rmSync(folder, { recursive: true });
});

function windowOf(lengthBytes: number) {
  return { startBytes: 0, endBytes: lengthBytes, blockBytes: BLOCK_BYTES };
}

function filled(memory: PartMemory, lengthBytes: number): Slot {
  const slot = memory.acquire(lengthBytes);
  slot.set(randomBytes(lengthBytes));
  return slot;
}

function sumsOfBlocks(data: Uint8Array): number[] {
  const count = Math.ceil(data.length / BLOCK_BYTES);
  return Array.from({ length: count }, (_, index) =>
    crc32(data.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)),
  );
}

/** Without direct I/O in the file system there is nothing to test. */
function openDirect(path: string, slot: Slot): number | undefined {
  try {
    const fd = openSync(path, O_WRONLY | O_DIRECT);
    writeSync(fd, slot, 0, slot.length, 0);
    return fd;
  } catch {
    return undefined;
  }
}

test("large parts are written with direct I/O, from suitable memory", ({ path, memory }) => {
  const slot = filled(memory, MIB);
  assert.ok(canBeDirect(slot, MIB));
  assert.not.ok(canBeDirect(slot, 512));
  assert.not.ok(canBeDirect(slot.subarray(512), MIB));
  assert.not.ok(canBeDirect(slot.subarray(0, 4096), MIB));
  const fd = openSync(path, O_RDWR | O_CREAT);
  const directFd = openDirect(path, slot);
  // Buffered writes fail: this file is closed.
  closeSync(fd);
  const part = { startBytes: slot.byteOffset, lengthBytes: MIB, offsetBytes: MIB };
  const parts = [{ ...part, window: windowOf(MIB) }];
  if (directFd === undefined) return;
  const answer = takeParts({ memory: slot.buffer, parts, files: { fd, directFd } });
  assert.is(answer.failure, undefined);
  assert.is(answer.cachedBytes, 0);
  assert.equal([...answer.sums[0]!], sumsOfBlocks(slot));
  assert.ok(readFileSync(path).subarray(MIB).equals(slot));
  closeSync(directFd);
});

test("unaligned parts go through the page cache, and zeros are not written", ({ path, memory }) => {
  const large = filled(memory, MIB + 512);
  const refused = filled(memory, MIB);
  refused[0] = "x".charCodeAt(0);
  const zeros = memory.acquire(MIB).fill(0);
  const fd = openSync(path, O_RDWR | O_CREAT);
  // Only aligned buffers may be written there: EINVAL.
  const directFd = openSync("/proc/self/oom_score_adj", O_RDWR);
  const parts = [large, refused, zeros].map((slot, index) => ({
    ...{ startBytes: slot.byteOffset, lengthBytes: slot.length },
    ...{ offsetBytes: index * 2 * MIB, window: windowOf(slot.length) },
  }));
  const answer = takeParts({ memory: large.buffer, parts, files: { fd, directFd } });
  assert.is(answer.failure, undefined);
  assert.is(answer.cachedBytes, large.length + refused.length);
  const [first, second, third] = answer.sums;
  assert.equal([...first!], sumsOfBlocks(large));
  assert.equal([...second!], sumsOfBlocks(refused));
  assert.is(third, null);
  const found = readFileSync(path);
  assert.is(found.length, 3 * MIB);
  assert.ok(found.subarray(0, MIB + 512).equals(large));
  assert.ok(found.subarray(2 * MIB).equals(refused));
  closeSync(fd);
  closeSync(directFd);
});

test("parts go to threads many at a time, and each gets its own result", async (world) => {
  const { path, memory, pool } = world;
  const fd = openSync(path, O_RDWR | O_CREAT);
  let cachedBytes = 0;
  const wrote = (bytes: number) => {
    cachedBytes += bytes;
  };
  const queue = new PartQueue(pool, { files: { fd, directFd: undefined }, wrote });
  const slots = Array.from({ length: 60 }, () => filled(memory, BLOCK_BYTES));
  slots.push(filled(memory, 4 * MIB), filled(memory, MIB), memory.acquire(BLOCK_BYTES).fill(0));
  let at = 0;
  const places = slots.map(({ length }) => {
    at += length;
    return at - length;
  });
  const answers = await Promise.all(
    slots.map((slot, index) => queue.put(slot, places[index]!, windowOf(slot.length))),
  );
  const found = readFileSync(path);
  assert.is(cachedBytes, places.at(-1)!, "all but the zeros");
  for (const [index, slot] of slots.slice(0, -1).entries()) {
    assert.equal([...answers[index]!], sumsOfBlocks(slot));
    assert.ok(found.subarray(places[index]!, places[index]! + slot.length).equals(slot));
  }
  assert.is(answers.at(-1), null);
  closeSync(fd);
});

test("a failed write of a thread is reported with its reason, and others continue", async (world) => {
  const { path, memory, pool } = world;
  closeSync(openSync(path, O_RDWR | O_CREAT));
  const readOnly = openSync(path, O_RDONLY);
  const queue = new PartQueue(pool, {
    files: { fd: readOnly, directFd: undefined },
    wrote: () => undefined,
  });
  const slot = filled(memory, MIB);
  const error = await failureOf(queue.put(slot, 0, windowOf(MIB)));
  assert.is(error.code, "EBADF");
  const sums = await new PartQueue(pool, undefined).put(slot, 0, windowOf(MIB));
  assert.equal([...sums!], sumsOfBlocks(slot));
  closeSync(readOnly);
});

test.run();
