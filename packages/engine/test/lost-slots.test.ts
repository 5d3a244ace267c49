/**
 * Slots that were lost: their blocks count as lost from that moment on, though their chunks are found in steps, with
 * requests in between.
 */
import { BlockState, CopyFault, type DiffArea, RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeHost } from "./fake-host.js";
import { Random } from "./sim/random.js";

const { READ, WRITE, DISCARD } = RequestOp;
const EIO = -5;
const CHUNK_BYTES = 65536;
const CHUNKS = 4;
const BLOCK_BYTES = 4096;

function findAll(host: FakeHost): void {
  while (host.engine.findLost(1));
}

/** The lost blocks, numbered over the device. */
function lostBlocks(area: DiffArea): number[] {
  const { geometry } = area.map;
  const found: number[] = [];
  for (let chunk = 0; chunk < geometry.chunkCount; chunk++) {
    for (let block = 0; block < geometry.blocksInChunk(chunk); block++) {
      const isLost = area.map.stateAt(chunk, block) === BlockState.LOST;
      if (isLost) found.push(chunk * geometry.blocksPerChunk + block);
    }
  }
  return found;
}

/** Chunk n has slot n, with two blocks. */
function taken(): { host: FakeHost; area: DiffArea; before: Uint8Array } {
  const host = new FakeHost();
  const before = host.original.slice();
  const area = host.take();
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    host.front(chunk, WRITE, chunk * CHUNK_BYTES, 2 * BLOCK_BYTES, 200);
  }
  host.run();
  for (let chunk = 0; chunk < CHUNKS; chunk++) assert.is(area.map.slotOf(chunk), chunk);
  return { host, area, before };
}

test("the blocks of lost slots are lost, and no others", () => {
  const { host, area, before } = taken();
  host.engine.loseSlots(2);
  findAll(host);
  assert.equal(lostBlocks(area), [32, 33, 48, 49]);
  assert.equal(host.faults, [5]);
  assert.is(host.readImage(2 * CHUNK_BYTES, BLOCK_BYTES).result, EIO);
  assert.equal(host.readImage(0, 2 * CHUNK_BYTES).data, before.slice(0, 2 * CHUNK_BYTES));
  const behind = 2 * CHUNK_BYTES + 2 * BLOCK_BYTES;
  assert.equal(
    host.readImage(behind, BLOCK_BYTES).data,
    before.slice(behind, behind + BLOCK_BYTES),
  );
});

test("a read of a loss that is not found yet fails, and the next step does not count it again", () => {
  const { host, area, before } = taken();
  host.engine.loseSlots(0);
  const at = 3 * CHUNK_BYTES;
  assert.equal(lostBlocks(area), []);
  assert.is(host.readImage(at, BLOCK_BYTES).result, EIO);
  assert.equal(lostBlocks(area), [48, 49]);
  // Data saved there from now on is valid, and overwriting a lost block heals it.
  host.front(0, WRITE, at + 2 * BLOCK_BYTES, BLOCK_BYTES, 201);
  host.image(1, WRITE, at, BLOCK_BYTES, 9);
  host.run();
  findAll(host);
  assert.equal(lostBlocks(area), [0, 1, 16, 17, 32, 33, 49]);
  const saved = at + 2 * BLOCK_BYTES;
  assert.equal(host.readImage(saved, BLOCK_BYTES).data, before.slice(saved, saved + BLOCK_BYTES));
  assert.equal(host.readImage(at, BLOCK_BYTES).data, new Uint8Array(BLOCK_BYTES).fill(9));
});

test("a copy in flight is repeated, and a read or a write of the slot fails", () => {
  const { host, area, before } = taken();
  host.image(1, READ, 0, BLOCK_BYTES);
  host.image(2, WRITE, CHUNK_BYTES, BLOCK_BYTES, 9);
  host.front(0, WRITE, 2 * CHUNK_BYTES + 2 * BLOCK_BYTES, BLOCK_BYTES, 201);
  host.engine.loseSlots(0);
  host.slots.clear();
  findAll(host);
  // It was written to the slot before, and is answered now.
  const copy = host.questions.findIndex(({ kind }) => kind === "copy");
  const [{ id }] = host.questions.splice(copy, 1);
  host.engine.onCopyDone(id, 0, CopyFault.NONE);
  host.run();
  assert.is(host.imageResults.get(1), EIO);
  assert.is(host.imageResults.get(2), EIO);
  assert.equal(lostBlocks(area), [0, 1, 16, 17, 32, 33, 48, 49]);
  const saved = 2 * CHUNK_BYTES + 2 * BLOCK_BYTES;
  assert.is(host.original[saved], 201);
  assert.equal(host.readImage(saved, BLOCK_BYTES).data, before.slice(saved, saved + BLOCK_BYTES));
});

test("a copy in flight that fails and is repeated in parts saves what is not lost", () => {
  const { host, area, before } = taken();
  const at = 2 * CHUNK_BYTES + 2 * BLOCK_BYTES;
  host.front(0, WRITE, at, 2 * BLOCK_BYTES, 201);
  host.engine.loseSlots(2);
  const copy = host.questions.findIndex(({ kind }) => kind === "copy");
  const [{ id }] = host.questions.splice(copy, 1);
  host.engine.onCopyDone(id, EIO, CopyFault.WRITE);
  host.run();
  findAll(host);
  assert.equal(lostBlocks(area), [32, 33, 48, 49]);
  assert.equal(host.readImage(at, 2 * BLOCK_BYTES).data, before.slice(at, at + 2 * BLOCK_BYTES));
});

test("stores are searched independently, and a further loss in one restarts its search", () => {
  const host = new FakeHost();
  const area = host.take(0, { storeShift: 4, storeCount: 2 });
  area.grantSlots(0, 1);
  area.grantSlots(16, 1);
  area.grantSlots(1, 1);
  for (let chunk = 0; chunk < 3; chunk++) host.front(chunk, WRITE, chunk * CHUNK_BYTES, 4096, 1);
  host.run();
  host.engine.loseSlots(16);
  host.engine.loseSlots(1);
  host.engine.findLost(1);
  host.engine.loseSlots(0);
  assert.is(host.readImage(CHUNK_BYTES, BLOCK_BYTES).result, EIO);
  findAll(host);
  assert.equal(lostBlocks(area), [0, 16, 32]);
  assert.not.ok(host.engine.findLost(1));
});

test("what was written to a chunk after its discard is lost, and never reads as zero", () => {
  const { host, area } = taken();
  host.image(1, DISCARD, CHUNK_BYTES, CHUNK_BYTES);
  host.run();
  host.image(1, WRITE, CHUNK_BYTES + 2 * BLOCK_BYTES, BLOCK_BYTES, 9);
  host.run();
  host.engine.loseSlots(area.map.slotOf(1));
  findAll(host);
  assert.is(host.readImage(CHUNK_BYTES + 2 * BLOCK_BYTES, BLOCK_BYTES).result, EIO);
  // A hole has one meaning in the whole chunk.
  const all = Array.from({ length: 16 }, (_, block) => 16 + block);
  assert.equal(lostBlocks(area), all);
  assert.equal([area.map.losses.blocks, area.map.losses.ranges], [16, 1]);
  assert.is(host.engine.stats.snapshot().lostBlocks, 16);
  // Another discard releases the chunk as before.
  host.image(1, DISCARD, CHUNK_BYTES, CHUNK_BYTES);
  host.run();
  const { result, data } = host.readImage(CHUNK_BYTES, BLOCK_BYTES);
  assert.equal([result, data], [BLOCK_BYTES, new Uint8Array(BLOCK_BYTES)]);
  assert.equal([area.map.losses.blocks, area.map.losses.ranges], [0, 0]);
});

test("a dropped area is not searched any more", () => {
  const { host } = taken();
  host.engine.loseSlots(0);
  host.engine.dropArea();
  assert.not.ok(host.engine.findLost(1));
  host.engine.loseSlots(0);
  assert.not.ok(host.engine.findLost(1));
});

/** Some requests, answered as they come; `between` is called between them. */
function story(seed: number, between: (host: FakeHost, random: Random) => void): unknown[] {
  const { host, area } = taken();
  host.engine.loseSlots(1);
  host.slots.delete(1);
  host.slots.delete(2);
  host.slots.delete(3);
  const random = new Random(seed);
  const chance = new Random(seed + 1);
  const results: unknown[] = [];
  for (let step = 0; step < 24; step++) {
    between(host, chance);
    const op = random.pick([READ, READ, WRITE, WRITE, DISCARD]);
    const first = random.below(60);
    const blocks = op === DISCARD ? 16 : random.between(1, 4);
    const offset = (op === DISCARD ? first & ~15 : first) * BLOCK_BYTES;
    const isFront = op === WRITE && random.oneIn(2);
    const cut = random.oneIn(3) && op !== DISCARD ? 512 : 0;
    if (isFront) host.front(0, WRITE, offset, blocks * BLOCK_BYTES, 100 + step);
    else host.image(0, op, offset + cut, blocks * BLOCK_BYTES - cut, 100 + step);
    host.run();
    const result = (isFront ? host.frontResults : host.imageResults).get(0);
    results.push([step, result, op === READ ? [...host.imageData[0]] : 0]);
  }
  findAll(host);
  results.push(lostBlocks(area), host.readImage(0, CHUNK_BYTES).result);
  for (let block = 0; block < 64; block++) {
    const { result, data } = host.readImage(block * BLOCK_BYTES, BLOCK_BYTES);
    results.push(result < 0 ? result : data[0]);
  }
  return results;
}

test("requests see no difference whether chunks are found in steps or at once", () => {
  for (let seed = 1; seed <= 300; seed++) {
    const atOnce = story(seed, findAll);
    const inSteps = story(seed, (host, random) => {
      if (random.oneIn(3)) host.engine.findLost(1);
    });
    assert.equal(inSteps, atOnce, `seed ${seed}`);
  }
});

test.run();
