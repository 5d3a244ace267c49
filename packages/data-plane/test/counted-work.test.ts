/**
 * The exact cost of requests in ring entries and system calls: both grow with each detour, but not with the load of the
 * machine. Only copies read the clock. One request is in flight at a time, the most expensive case.
 */
import { closeSync, ftruncateSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap, RequestOp } from "@blksnap/engine";
import { createMemoryFile, MappedMemory, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { IoTicker } from "../dist/io-ticker.js";
import type { ReactorNotice } from "../dist/messages.js";
import { TrackedDevice } from "../dist/tracked-device.js";
import { prepareArea } from "./device-settings.js";
import { FakeUblk, type UserRequest } from "./fake-ublk.js";

const { READ, WRITE } = RequestOp;
const MIB = 2 ** 20;
const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 2 ** 18;
const REQUESTS = 64;
const AREA = "11111111-1111-4111-8111-111111111111";
const geometry = {
  capacityBytes: 32 * MIB,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
/** Nothing is late, and no tick of the clock is counted. */
const IO_TIMEOUT_MS = 10_000_000;
const QUEUE = { queueDepth: 1, maxIoBytes: MIB };

/** How often the clock was read. */
let clockReads = 0;
// A clock that costs nothing: with a slow one, not all copies are timed.
performance.now = () => clockReads++ * 0.0001;

/** A tracked device in a snapshot, with its image, over files in memory. */
class World {
  readonly notices: ReactorNotice[] = [];
  readonly ublk = new FakeUblk();
  readonly front: number;
  readonly image: number;
  readonly #device: TrackedDevice;
  readonly #fds: number[] = [];
  readonly #channel = new MessageChannel();

  constructor(zeroCopy = false) {
    const wakeFd = native.eventFd(0, 0o2000000);
    const reactor = new Reactor({
      wakeFd,
      port: this.#channel.port2,
      onMessage: () => undefined,
      onError: (error) => {
        throw error;
      },
      beforeEnter: this.ublk.beforeEnter,
    });
    this.ublk.use(reactor);
    this.front = this.ublk.addDevice(QUEUE.maxIoBytes);
    this.image = this.ublk.addDevice(QUEUE.maxIoBytes);
    this.#fds.push(wakeFd);
    const device = this.#attach(reactor, zeroCopy);
    this.#device = device;
    prepareArea(device, this.#area());
    device.hold(IO_TIMEOUT_MS, () => undefined);
    device.switchAndRelease(AREA);
    device.areaOf(AREA)?.openImage({ charFd: this.image, ...QUEUE });
    // Starts the I/O clock, which begins with the first I/O that has a bound.
    this.ublk.run(this.image, [read(0)]);
  }

  /** How many copies and takes were timed. */
  get timed(): { copies: number; takes: number } {
    const { copy, takeStall } = this.#device.counters().durations;
    const [copies = 0, takes = 0] = [copy, takeStall].map(({ buckets }) =>
      buckets.reduce((sum, count) => sum + count, 0),
    );
    return { copies, takes };
  }

  /** Copies that went behind their write. */
  get copiesBehind(): number {
    return this.#device.counters().engine.copiesBehind;
  }

  close(): void {
    this.ublk.close();
    for (const fd of this.#fds) closeSync(fd);
    this.#channel.port1.close();
  }

  #attach(reactor: Reactor, zeroCopy: boolean): TrackedDevice {
    const { capacityBytes } = geometry;
    const lengthBytes = CbtMap.byteLength(capacityBytes, 16);
    const fd = this.#file("cbt", lengthBytes);
    const memory = MappedMemory.file(fd, 0, lengthBytes);
    const generation = Uint8Array.from({ length: 16 }, (_, index) => index);
    CbtMap.create(memory.buffer, { capacityBytes, blockShift: 16, generation });
    const heartbeat = new SharedArrayBuffer(4);
    const settings = { index: 0, imageDepth: 1, ioTimeoutMs: IO_TIMEOUT_MS, heartbeat };
    const request = {
      type: "attach",
      tracker: 1,
      queue: { charFd: this.front, ...QUEUE, zeroCopy },
      originalFd: this.#file("original", capacityBytes),
      isBlock: false,
      geometry,
      cbt: { fd, lengthBytes },
      area: undefined,
    } as const;
    const ticker = new IoTicker(reactor, IO_TIMEOUT_MS);
    const tell = (notice: ReactorNotice) => this.notices.push(notice);
    const all = { ...settings, ringEntries: 256 };
    const device = new TrackedDevice(reactor, all, request, ticker, tell);
    device.start();
    return device;
  }

  #area() {
    const lengthBytes = DiffAreaMap.byteLength(geometry);
    return {
      id: AREA,
      map: { fd: this.#file("map", lengthBytes), lengthBytes },
      storeCount: 1,
      storeFds: [this.#file("store", geometry.capacityBytes)],
      extents: [0, geometry.capacityBytes / CHUNK_BYTES],
      lowWaterSlots: 0,
      wantedSlots: 1,
      wantedSlotsMax: 1,
      slotBytes: CHUNK_BYTES,
      overflow: { policy: 0, tickMs: 100, ticksMax: 1 },
    };
  }

  #file(name: string, lengthBytes: number): number {
    const fd = createMemoryFile(name);
    ftruncateSync(fd, lengthBytes);
    this.#fds.push(fd);
    return fd;
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

/**
 * Asserts entries and calls per request, besides fetching the first one, and memory look-ups for all of them, and that
 * the main thread got no message.
 */
function assertWork(
  world: World,
  charFd: number,
  requests: UserRequest[],
  wanted: { entries: number; enters?: number; lookups?: number; clockReads?: number },
): void {
  const before = clockReads;
  const { results, entries, enters, lookups } = world.ublk.run(charFd, requests);
  assert.equal(
    results,
    requests.map(({ lengthBytes }) => lengthBytes),
  );
  assert.is((entries - 1) / requests.length, wanted.entries);
  if (wanted.enters !== undefined) assert.is((enters - 1) / requests.length, wanted.enters);
  assert.is(lookups, wanted.lookups ?? 0);
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
  assertWork(world, world.front, each(write), { entries: 4, clockReads: 2 });
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
  assertWork(world, world.front, each(write), { entries: 4, clockReads: 2 });
  assertWork(world, world.front, each(write), { entries: 2, enters: 2 });
  assertWork(world, world.front, each(write, 9), { entries: 4, clockReads: 2 });
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
    clockReads: (count * 2) / blocks,
  });
  assertWork(world, world.front, chunk(0), pairs(8));
  assertWork(world, world.front, chunk(1), pairs(1));
  assertWork(world, world.front, chunk(2), pairs(1));
  const atRandom = chunk(5).map((_, index, all) => all[(index * 37) % blocks] as UserRequest);
  assertWork(world, world.front, atRandom, { entries: 4, clockReads: 2 });
  world.close();
});

test("a long first write is a linked pair for each chunk, and the write", () => {
  const world = new World();
  const copies = MIB / CHUNK_BYTES;
  const twoLong = [write(0, MIB), write(MIB, MIB)];
  // How many copies end in one turn, and share a reading of the clock, depends on the kernel.
  const { results, entries, lookups } = world.ublk.run(world.front, twoLong);
  assert.equal(results, [MIB, MIB]);
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
  assertWork(world, world.front, oneCopy(8, 16), { entries: 4, clockReads: 2 });
  assert.is(world.copiesBehind, 1);
  assertWork(world, world.front, oneCopy(10, 17), { entries: 4, clockReads: 2 });
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
