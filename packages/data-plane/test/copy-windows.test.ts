/** Where the bytes of copies are, and which of these the kernel has pinned. */
import { closeSync, ftruncateSync, readSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { BufferOwner, type TrackerEngine } from "@blksnap/engine";
import { NOT_REGISTERED } from "@blksnap/ublk";
import { createMemoryFile, MappedMemory, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import type { PlacesOfMap } from "../dist/copy-places.js";
import { CopyWindows, WINDOW_KINDS } from "../dist/copy-windows.js";
import { LONG_WINDOW_BYTES } from "../dist/long-windows.js";

const BLOCK_BYTES = 4096;
/** Most long windows of a reactor. */
const LONG_WINDOWS_MAX = 32;
/** The window of a front whose requests are as long as a long window. */
const FRONT_WINDOW_BYTES = LONG_WINDOW_BYTES + 2 * BLOCK_BYTES;
const LONG_BLOCKS = LONG_WINDOW_BYTES / BLOCK_BYTES;
const COPIES = LONG_WINDOWS_MAX + 2;
const { FRONT, IMAGE } = BufferOwner;

class World {
  readonly reactor: Reactor;
  readonly copies = {
    size: COPIES,
    bufferOwner: new Uint8Array(COPIES),
    bufferTag: new Int32Array(COPIES),
    bufferOffsetBytes: new Int32Array(COPIES),
    lengthBytes: new Int32Array(COPIES),
  };
  readonly windows: CopyWindows;
  idle = 0;
  readonly #wakeFd = native.eventFd(0, 0o2000000);
  readonly #channel = new MessageChannel();

  readonly #imageWindowBytes: number;

  constructor(buffersMax: number, imageWindowBytes: number = 2 * BLOCK_BYTES) {
    this.#imageWindowBytes = imageWindowBytes;
    this.reactor = new Reactor({
      wakeFd: this.#wakeFd,
      port: this.#channel.port2,
      onMessage: () => undefined,
      onError: () => undefined,
      buffersMax,
    });
    this.windows = this.makeWindows();
  }

  makeWindows(places?: PlacesOfMap): CopyWindows {
    return new CopyWindows({
      places,
      reactor: this.reactor,
      engine: { copies: this.copies } as unknown as TrackerEngine,
      frontDepth: 2,
      imageDepth: 2,
      frontWindowBytes: FRONT_WINDOW_BYTES,
      imageWindowBytes: this.#imageWindowBytes,
      onIdle: () => this.idle++,
    });
  }

  begin(
    copy: number,
    owner: number,
    tag: number,
    offset: number,
    length: number,
  ): [number, number] {
    this.copies.bufferOwner[copy] = owner;
    this.copies.bufferTag[copy] = tag;
    this.copies.bufferOffsetBytes[copy] = offset * BLOCK_BYTES;
    this.copies.lengthBytes[copy] = length * BLOCK_BYTES;
    this.windows.begin(copy);
    const address = this.windows.addressOf(copy);
    return [address, address + length * BLOCK_BYTES];
  }

  isRegistered(copy: number): boolean {
    return this.windows.bufferIndexOf(copy) !== NOT_REGISTERED;
  }

  close(): void {
    this.reactor.stop();
    this.reactor.run();
    closeSync(this.#wakeFd);
    this.#channel.port1.close();
  }
}

/** Room in the ring's table for all windows of one area, short and long. */
const ALL_BUFFERS = 1 + LONG_WINDOWS_MAX;
/** In this order, each copy gets a byte of its own. */
const SIDE_BY_SIDE: [owner: number, tag: number, offset: number, length: number][] = [
  [FRONT, 0, 0, 1],
  [FRONT, 0, 1, 3],
  [FRONT, 0, 4, 1],
  [FRONT, 0, 5, 59],
  [FRONT, 1, 0, 3],
  [FRONT, 1, 3, 2],
  [IMAGE, 0, 1, 1],
  [IMAGE, 1, 0, 1],
];

function assertDisjoint(ranges: [number, number][]): void {
  ranges.sort(([a], [b]) => a - b);
  for (let i = 1; i < ranges.length; i++) assert.ok(ranges[i][0] >= ranges[i - 1][1]);
}

for (const [what, buffersMax, imageBlocks, plain] of [
  ["copies are registered, short and long ones", ALL_BUFFERS, 2, []],
  [
    "what does not end within a tag's first blocks is plain where the ring has no place for it",
    1,
    2,
    [2, 3, 5],
  ],
  [
    "an image with blocks so large that much memory would be pinned has plain windows",
    ALL_BUFFERS,
    8,
    [6, 7],
  ],
] as const) {
  test(`${what}, and no two share bytes`, () => {
    const world = new World(buffersMax, imageBlocks * BLOCK_BYTES);
    const { windows } = world;
    const ranges = SIDE_BY_SIDE.map((one, copy) => world.begin(copy, ...one));
    const copies = [...SIDE_BY_SIDE.keys()];
    assert.equal(
      copies.filter((copy) => !world.isRegistered(copy)),
      plain,
    );
    assertDisjoint(ranges);
    windows.bytesOf(6).fill(7);
    for (const copy of copies) windows.end(copy);
    windows.close();
    assert.is(world.idle, WINDOW_KINDS);
    windows.unmap();
    world.close();
  });
}

test("long windows are tried again after a while without them", () => {
  const world = new World(ALL_BUFFERS);
  const { reactor, windows } = world;
  const { addBuffer } = reactor;
  let refusals = 0;
  reactor.addBuffer = () => {
    refusals++;
    throw new Error("no memory");
  };
  const isLong = (): boolean => {
    world.begin(0, FRONT, 0, 0, LONG_BLOCKS);
    const is = world.isRegistered(0);
    windows.end(0);
    return is;
  };
  let without = 0;
  for (; refusals < 2; without++) assert.not(isLong());
  assert.ok(without > 100, "not for each copy");
  reactor.addBuffer = addBuffer;
  let tries = 0;
  while (!isLong()) assert.ok(++tries < 10_000, "it is not tried again");
  windows.close();
  windows.unmap();
  world.close();
});

test("copies do without registered memory if the ring's table is full", () => {
  // The ring's table has room for one: the first area takes it.
  const world = new World(1);
  const second = world.makeWindows();
  world.begin(0, FRONT, 0, 0, 1);
  assert.ok(world.isRegistered(0));
  second.begin(0);
  assert.is(second.bufferIndexOf(0), NOT_REGISTERED);
  second.bytesOf(0).fill(7);
  second.end(0);
  second.unmap();
  world.windows.end(0);
  world.windows.unmap();
  world.close();
});

test("a tag whose copy is late gets another window, which is not registered", () => {
  const world = new World(ALL_BUFFERS);
  const [late] = world.begin(0, FRONT, 1, 0, 2);
  world.windows.setLate(0);
  const [next] = world.begin(1, FRONT, 1, 0, 2);
  assert.is.not(next, late);
  assert.not(world.isRegistered(1));
  assert.is(world.windows.addressOf(0), late);
  world.windows.bytesOf(1).fill(7);
  world.begin(2, FRONT, 0, 0, 1);
  assert.ok(world.isRegistered(2), "other tags keep theirs");
  const far = world.begin(3, FRONT, 1, 0, FRONT_WINDOW_BYTES / BLOCK_BYTES);
  assert.is(far[1] - far[0], FRONT_WINDOW_BYTES, "and its window for long copies is as it was");
  for (const copy of [1, 2, 3]) world.windows.end(copy);
  world.windows.close();
  assert.is(world.idle, WINDOW_KINDS - 1);
  world.windows.end(0);
  assert.is(world.idle, WINDOW_KINDS);
  world.windows.unmap();
  world.close();
});

test("long copies use long windows while there are any, and then the tag's", () => {
  const world = new World(ALL_BUFFERS + 1);
  const tooLong = world.begin(LONG_WINDOWS_MAX, FRONT, 1, 0, LONG_BLOCKS + 1);
  const long = Array.from({ length: LONG_WINDOWS_MAX }, (_, copy) =>
    world.begin(copy, FRONT, 0, 0, LONG_BLOCKS),
  );
  const oneMore = world.begin(LONG_WINDOWS_MAX + 1, FRONT, 0, 0, LONG_BLOCKS);
  assert.ok(long.every((_, copy) => world.isRegistered(copy)));
  for (const copy of [LONG_WINDOWS_MAX, LONG_WINDOWS_MAX + 1]) assert.not(world.isRegistered(copy));
  const [first] = long[0] as [number, number];
  assertDisjoint([...long, tooLong, oneMore]);
  world.windows.bytesOf(0).fill(7);
  world.windows.end(0);
  assert.is(world.begin(0, FRONT, 1, 5, 59)[0], first, "what is given back is taken next");
  for (let copy = 0; copy < COPIES; copy++) world.windows.end(copy);
  world.windows.close();
  world.windows.unmap();
  world.close();
});

test("a long window is in use until its copy is answered, even a late one", () => {
  const world = new World(ALL_BUFFERS);
  const [late] = world.begin(0, FRONT, 1, 0, LONG_BLOCKS);
  world.windows.setLate(0);
  const [next] = world.begin(1, FRONT, 1, 0, LONG_BLOCKS);
  assert.is.not(next, late);
  assert.is(world.windows.addressOf(0), late);
  assert.ok(world.isRegistered(1), "the tag has kept what it had");
  world.windows.end(1);
  world.windows.close();
  assert.is(world.idle, WINDOW_KINDS - 1);
  world.windows.end(0);
  assert.is(world.idle, WINDOW_KINDS);
  world.windows.unmap();
  world.close();
});

test("areas share long windows, which are freed with the last area", () => {
  // The short windows of two areas take one entry of the ring's table each, a long one the third.
  const world = new World(3);
  const second = world.makeWindows();
  const [first] = world.begin(0, FRONT, 0, 0, LONG_BLOCKS);
  world.windows.end(0);
  second.begin(0);
  assert.is(second.addressOf(0), first);
  world.windows.unmap();
  second.bytesOf(0).fill(7);
  second.end(0);
  second.unmap();
  world.copies.lengthBytes[0] = BLOCK_BYTES;
  for (const windows of [world.makeWindows(), world.makeWindows(), world.makeWindows()]) {
    windows.begin(0);
    assert.is.not(windows.bufferIndexOf(0), NOT_REGISTERED, "all places of the table are free");
    windows.end(0);
  }
  world.close();
});

test("near windows of a map with places are in its file, until I/O is late", () => {
  const world = new World(ALL_BUFFERS);
  const placeBytes = 4 * BLOCK_BYTES;
  const lengthBytes = 3 * BLOCK_BYTES + 2 * placeBytes;
  const fd = createMemoryFile("map");
  ftruncateSync(fd, lengthBytes);
  const memory = MappedMemory.file(fd, 0, lengthBytes);
  const offsetBytes = 3 * BLOCK_BYTES;
  let users = 0;
  const uses = { isPopulated: false, hold: () => users++, release: () => users-- };
  const windows = world.makeWindows({ memory, count: 2, placeBytes, offsetBytes, ...uses });
  const begin = (copy: number, owner: number, tag: number, blocks: number): void => {
    world.copies.bufferOwner[copy] = owner;
    world.copies.bufferTag[copy] = tag;
    world.copies.bufferOffsetBytes[copy] = 0;
    world.copies.lengthBytes[copy] = blocks * BLOCK_BYTES;
    windows.begin(copy);
    windows.bytesOf(copy).fill(copy + 1);
  };
  const inFile = (): number[] => {
    const bytes = new Uint8Array(lengthBytes);
    readSync(fd, bytes, 0, lengthBytes, 0);
    return [0, BLOCK_BYTES, 3 * BLOCK_BYTES].map((at) => bytes[offsetBytes + placeBytes + at] ?? 0);
  };
  begin(0, FRONT, 1, 3);
  begin(1, IMAGE, 1, 1);
  assert.equal(inFile(), [1, 1, 0]);
  const places = windows.bufferIndexOf(0);
  assert.is.not(places, NOT_REGISTERED);
  assert.is.not(windows.bufferIndexOf(1), places);
  // The copy is late: later copies of its tag are elsewhere.
  windows.setLate(0);
  begin(2, FRONT, 1, 1);
  assert.is(windows.bufferIndexOf(2), NOT_REGISTERED);
  assert.equal(inFile(), [1, 1, 0]);
  for (const copy of [0, 1, 2]) windows.end(copy);
  windows.close();
  assert.is(users, 1, "the map stays mapped as long as something late may use it");
  windows.unmap();
  assert.is(users, 0);
  memory.unmap();
  closeSync(fd);
  world.close();
});

test("a tag without a place in the map has a registered window, unless that would be a long one", () => {
  for (const [blocks, isRegistered] of [
    [4, true],
    [16, false],
  ] as const) {
    const world = new World(ALL_BUFFERS);
    const lengths: number[] = [];
    const addBuffer = world.reactor.addBuffer.bind(world.reactor);
    world.reactor.addBuffer = (address, lengthBytes) => {
      lengths.push(lengthBytes);
      return addBuffer(address, lengthBytes);
    };
    const placeBytes = blocks * BLOCK_BYTES;
    const memory = MappedMemory.anonymous(placeBytes);
    const uses = { isPopulated: false, hold: () => undefined, release: () => undefined };
    const windows = world.makeWindows({ memory, count: 1, placeBytes, offsetBytes: 0, ...uses });
    const { bufferOwner, bufferTag, lengthBytes } = world.copies;
    for (const tag of [0, 1]) {
      bufferOwner[tag] = FRONT;
      bufferTag[tag] = tag;
      lengthBytes[tag] = BLOCK_BYTES;
      windows.begin(tag);
      windows.bytesOf(tag).fill(tag + 1);
    }
    assert.is.not(windows.bufferIndexOf(0), NOT_REGISTERED);
    // Without a window of its own, it uses one of the shared long ones.
    assert.is(lengths.includes(LONG_WINDOW_BYTES), !isRegistered);
    for (const tag of [0, 1]) windows.end(tag);
    windows.close();
    windows.unmap();
    memory.unmap();
    world.close();
  }
});

test.run();
