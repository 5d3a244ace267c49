/** Where copies have their bytes, and which of these the kernel has pinned. */
import { closeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { BufferOwner, type TrackerEngine } from "@blksnap/engine";
import { NOT_REGISTERED } from "@blksnap/ublk";
import { Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { CopyWindows, WINDOW_KINDS } from "../dist/copy-windows.js";

const BLOCK_BYTES = 4096;
const FRONT_WINDOW_BYTES = 64 * BLOCK_BYTES;
const COPIES = 8;
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

  makeWindows(): CopyWindows {
    return new CopyWindows({
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

/** One after the other, each copy a byte of which another must not have. */
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

test("what ends within the first blocks of a tag's window is registered, and no two copies share bytes", () => {
  const world = new World(4);
  const ranges = SIDE_BY_SIDE.map((one, copy) => world.begin(copy, ...one));
  const registered = ranges.map((_, copy) => world.isRegistered(copy));
  assert.equal(registered, [true, true, false, false, true, false, true, true]);
  ranges.sort(([a], [b]) => a - b);
  for (let i = 1; i < ranges.length; i++) assert.ok(ranges[i][0] >= ranges[i - 1][1]);
  for (let copy = 0; copy < COPIES; copy++) world.windows.end(copy);
  world.windows.close();
  assert.is(world.idle, WINDOW_KINDS);
  world.windows.unmap();
  world.close();
});

test("an image with blocks so large that much memory would be pinned has plain windows", () => {
  const world = new World(4, 8 * BLOCK_BYTES);
  const ranges = SIDE_BY_SIDE.map((one, copy) => world.begin(copy, ...one));
  const registered = ranges.map((_, copy) => world.isRegistered(copy));
  assert.equal(registered, [true, true, false, false, true, false, false, false]);
  ranges.sort(([a], [b]) => a - b);
  for (let i = 1; i < ranges.length; i++) assert.ok(ranges[i][0] >= ranges[i - 1][1]);
  world.windows.bytesOf(6).fill(7);
  for (let copy = 0; copy < COPIES; copy++) world.windows.end(copy);
  world.windows.unmap();
  world.close();
});

test("copies do without registered memory where there is no place for it", () => {
  // The ring's table has one place: the first area has it.
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

test("a tag whose copy is late gets a window beside it, which is not registered", () => {
  const world = new World(4);
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

test.run();
