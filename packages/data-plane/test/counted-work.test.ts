/**
 * The exact cost of requests in ring entries, bytes and system calls: they grow with each detour, but not with the load
 * of the machine. Only copies read the clock. One request is in flight at a time, the most expensive case.
 */
import { RequestOp } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { FakeUblk, type UserRequest } from "./fake-ublk.js";
import { CHUNK_BYTES, PlaneWorld } from "./plane-world.js";

const { READ, WRITE } = RequestOp;
const MIB = 2 ** 20;
const BLOCK_BYTES = 4096;
const REQUESTS = 64;
/** A first write: its block is read and written to a slot before. */
const COPIED = { entries: 4, bytes: 3, clockReads: 2 };

/** How often the clock was read. */
let clockReads = 0;
native.readClock = (us) => {
  us[0] = clockReads++;
  return 0;
};
// A clock that costs nothing: with a slow one, not all copies are timed.
performance.now = () => 1;

class World extends PlaneWorld {
  readonly ublk: FakeUblk;

  constructor(zeroCopy = false) {
    const ublk = new FakeUblk();
    super(ublk, { capacityBytes: 32 * MIB, queueDepth: 1, zeroCopy });
    this.ublk = ublk;
    // Starts the I/O clock, which begins with the first I/O that has a bound.
    ublk.run(this.image, [read(0)]);
  }
}

function read(offsetBytes: number, lengthBytes: number = BLOCK_BYTES): UserRequest {
  return { op: READ, offsetBytes, lengthBytes };
}

function write(offsetBytes: number, lengthBytes: number = BLOCK_BYTES): UserRequest {
  return { op: WRITE, offsetBytes, lengthBytes };
}

/** One request for each chunk, at the same offset in each. */
function each(make: (offsetBytes: number) => UserRequest, block = 1): UserRequest[] {
  const at = (index: number): number => index * CHUNK_BYTES + block * BLOCK_BYTES;
  return Array.from({ length: REQUESTS }, (_, index) => make(at(index)));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/**
 * Asserts entries and calls per request, besides fetching the first one, bytes transferred for each of its own, and
 * memory look-ups for all of them, and that the main thread got no message.
 */
function assertWork(
  world: World,
  charFd: number,
  requests: UserRequest[],
  wanted: { entries: number; bytes?: number; enters?: number; clockReads?: number },
): void {
  const before = clockReads;
  const lengths = requests.map(({ lengthBytes }) => lengthBytes);
  const { results, entries, bytes, enters, lookups } = world.ublk.run(charFd, requests);
  assert.equal(results, lengths);
  assert.is(bytes / sum(lengths), wanted.bytes ?? 1);
  assert.is((entries - 1) / requests.length, wanted.entries);
  if (wanted.enters !== undefined) assert.is((enters - 1) / requests.length, wanted.enters);
  assert.is(lookups, 0);
  assert.is((clockReads - before) / requests.length, wanted.clockReads ?? 0);
  assert.equal(world.notices, []);
}

test("a read of the front or the image is one entry and its answer, wherever the data is", () => {
  const world = new World();
  const twoOfBoth = { entries: 2, enters: 2 };
  assertWork(world, world.front, each(read), twoOfBoth);
  assertWork(world, world.image, each(read), twoOfBoth);
  world.ublk.run(world.front, each(write));
  assertWork(world, world.front, each(read), twoOfBoth);
  assertWork(world, world.image, each(read), twoOfBoth);
  world.close();
});

test("with zero copy there are as many entries, and no copies or look-ups", () => {
  const world = new World(true);
  const twoOfBoth = { entries: 2, enters: 2 };
  assertWork(world, world.front, each(read), twoOfBoth);
  assertWork(world, world.front, each(write), COPIED);
  assertWork(world, world.front, each(write), twoOfBoth);
  assertWork(world, world.front, [read(0, MIB), read(MIB, MIB)], twoOfBoth);
  world.close();
});

test("a read of the image has one entry per contiguous stretch", () => {
  const world = new World();
  world.ublk.run(world.front, [write(BLOCK_BYTES), write(CHUNK_BYTES, 2 * BLOCK_BYTES)]);
  // The original, a slot, the original; a slot, the original; the answer.
  assertWork(world, world.image, [read(0, 2 * CHUNK_BYTES)], { entries: 6 });
  // Nothing is saved from here on: adjacent blocks of the original are one stretch.
  assertWork(world, world.image, [read(2 * CHUNK_BYTES, MIB)], { entries: 2, enters: 2 });
  world.close();
});

test("a first write is a read, a slot write and its own write; the next one is only its own", () => {
  const world = new World();
  assertWork(world, world.front, each(write), COPIED);
  assertWork(world, world.front, each(write), { entries: 2, enters: 2 });
  assertWork(world, world.front, each(write, 9), COPIED);
  assert.is(world.copiesBehind, 2 * REQUESTS);
  assert.equal(world.timed, { copies: 2 * REQUESTS, takes: 1 });
  world.close();
});

test("first writes in sequence share one linked pair per chunk, random ones share no copy", () => {
  const world = new World();
  const blocks = CHUNK_BYTES / BLOCK_BYTES;
  const chunk = (number: number): UserRequest[] =>
    Array.from({ length: blocks }, (_, index) => write(number * CHUNK_BYTES + index * BLOCK_BYTES));
  // The sequence has to form: blocks 0 to 3 alone, then 4 to 8, 9 to 18, 19 to 38, and 39 to 63.
  const pairs = (count: number) => ({
    entries: 2 + (count * 2) / blocks,
    bytes: 3,
    clockReads: (count * 2) / blocks,
  });
  assertWork(world, world.front, chunk(0), pairs(8));
  assertWork(world, world.front, chunk(1), pairs(1));
  assertWork(world, world.front, chunk(2), pairs(1));
  const atRandom = chunk(5).map((_, index, all) => all[(index * 37) % blocks] as UserRequest);
  assertWork(world, world.front, atRandom, COPIED);
  world.close();
});

test("a long first write is a linked pair for each chunk, and the write", () => {
  const world = new World();
  const copies = MIB / CHUNK_BYTES;
  const twoLong = [write(0, MIB), write(MIB, MIB)];
  // How many copies end in one turn, and share a reading of the clock, depends on the kernel.
  const { results, entries, bytes, lookups } = world.ublk.run(world.front, twoLong);
  assert.equal(results, [MIB, MIB]);
  assert.is(bytes, 3 * 2 * MIB);
  assert.is((entries - 1) / twoLong.length, 2 + copies * 2);
  assert.is(lookups, 0);
  assertWork(world, world.front, twoLong, { entries: 2, enters: 2 });
  assert.is(world.copiesBehind, 0);
  world.close();
});

test("a first write of up to 64 KiB goes beside its copy, a longer one after it, with as many entries", () => {
  const world = new World();
  const oneCopy = (chunk: number, blocks: number) => [
    write(chunk * CHUNK_BYTES, blocks * BLOCK_BYTES),
  ];
  assertWork(world, world.front, oneCopy(8, 16), COPIED);
  assert.is(world.copiesBehind, 1);
  assertWork(world, world.front, oneCopy(10, 17), COPIED);
  assert.is(world.copiesBehind, 1);
  world.close();
});

test("whole blocks written to the image go directly to their slot", () => {
  const world = new World();
  assertWork(world, world.image, each(write), { entries: 2, enters: 2 });
  assertWork(world, world.image, each(write), { entries: 2, enters: 2 });
  world.close();
});

test.run();
