/** NBD connections of a front and of an image. */
import { closeSync, readSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DOORS_MAX, NbdDoor } from "../dist/nbd-door.js";
import { nbdFrontTarget } from "../dist/nbd-targets.js";
import { Slices } from "../dist/slices.js";
import {
  AREA,
  BLOCK,
  BLOCK_STATUS,
  MIB,
  NOTHING,
  PARAMS,
  Pair,
  READ,
  World,
  WRITE,
} from "./nbd-world.js";

const CHUNK_HEADER = 20;

test("a reactor opens a limited number of doors, and another when one has ended", async () => {
  const world = new World();
  const { reactor } = world;
  const slices = new Slices(reactor);
  const open = async (): Promise<{ door: NbdDoor; pair: Pair; isServed: boolean }> => {
    const door = new NbdDoor({
      ...{ reactor, slices, maxIoBytes: 4096 },
      openTarget: (queue) => nbdFrontTarget(reactor, queue, world.original, false),
      onError: (error) => world.errors.push(error),
    });
    const pair = await Pair.make(world);
    const connection = { fd: pair.serverFd, structured: true, contexts: [], received: NOTHING };
    const told: boolean[] = [];
    door.serve(PARAMS, connection, (isServed) => told.push(isServed));
    world.until(() => told.length > 0);
    return { door, pair, isServed: told[0] === true };
  };
  const doors: Awaited<ReturnType<typeof open>>[] = [];
  for (let left = DOORS_MAX; left > 0; left--) doors.push(await open());
  assert.ok(doors.every(({ isServed }) => isServed));
  const beyond = await open();
  assert.not.ok(beyond.isServed);
  closeSync(beyond.pair.serverFd);
  doors[0]?.door.end(() => undefined);
  world.until(() => doors[0]?.door.isEnded === true);
  const next = await open();
  assert.ok(next.isServed);
  for (const { door } of [...doors, next]) door.end(() => undefined);
  world.until(() => [...doors, next].every(({ door }) => door.isEnded));
  assert.equal(world.errors, []);
  for (const { pair } of [...doors, beyond, next]) pair.close();
  slices.close();
  world.close();
});

test("an image and its front are read, and the image's end ends its connections", async () => {
  const world = new World();
  world.device.engine.markDirty(BLOCK, 2 * BLOCK);
  world.take();
  const image = await Pair.make(world);
  const contexts = ["base:allocation", "qemu:dirty-bitmap:since-0"];
  assert.ok(world.serve(image.serverFd, AREA, contexts));
  image.send(READ, 4096, 8192);
  const reply = image.received(CHUNK_HEADER + 8 + 8192);
  assert.is(reply.readUInt16BE(4), 1, "in one chunk");
  assert.ok(reply.subarray(CHUNK_HEADER + 8).equals(Buffer.alloc(8192, 7)));
  assert.is(world.device.counters().image.readBytes, 8192);

  image.send(BLOCK_STATUS, 0, 8 * BLOCK);
  const status = image.received(CHUNK_HEADER + 4 + 8 + CHUNK_HEADER + 4 + 3 * 8);
  const dirty = status.subarray(-24);
  const words = Array.from({ length: 6 }, (_, at) => dirty.readUInt32BE(at * 4));
  assert.equal(words, [BLOCK, 0, 2 * BLOCK, 1, 5 * BLOCK, 0]);

  // The same by the map's generation, and by a generation that ended after the name was passed on.
  const named = await Pair.make(world);
  const of = (digit: string) =>
    `${contexts[1]}-of-${"00000000-0000-0000-0000-00000000000"}${digit}`;
  assert.ok(world.serve(named.serverFd, AREA, [of("0"), of("1")]));
  named.send(BLOCK_STATUS, 0, 8 * BLOCK);
  const both = named.received(2 * (CHUNK_HEADER + 4) + 4 * 8);
  assert.ok(both.subarray(CHUNK_HEADER + 4, CHUNK_HEADER + 28).equals(dirty));
  assert.equal(
    [both.readUInt32BE(both.length - 8), both.readUInt32BE(both.length - 4)],
    [8 * BLOCK, 1],
  );

  const front = await Pair.make(world);
  assert.ok(world.serve(front.serverFd, null));
  front.send(READ, 0, 4096);
  assert.ok(
    front
      .received(CHUNK_HEADER + 8 + 4096)
      .subarray(-4096)
      .equals(Buffer.alloc(4096, 7)),
  );

  assert.equal(world.ask("dropArea"), [undefined]);
  image.send(READ, 0, 4096);
  const failed = image.received(CHUNK_HEADER + 6);
  assert.is(failed.readUInt16BE(6), 0x8001, "an error by protocol");
  const closed = world.ask("closeArea");
  world.until(() => closed.length > 0);
  assert.equal(closed, [{ isLate: false }]);
  assert.is(image.received(1).length, 0);
  const late = await Pair.make(world);
  assert.not.ok(world.serve(late.serverFd, AREA));
  closeSync(late.serverFd);

  let isEnded = false;
  world.device.awaitFrontEnd(() => {
    isEnded = true;
  });
  world.until(() => isEnded);
  assert.is(front.received(1).length, 0);
  assert.equal(world.errors, []);
  for (const one of [image, front, late, named]) one.close();
  world.close();
});

test("a client that reads no replies does not delay the end of its image", async () => {
  const world = new World();
  world.take();
  const pair = await Pair.make(world);
  assert.ok(world.serve(pair.serverFd, AREA));
  for (let at = 0; at < 64; at++) pair.send(READ, 0, MIB);
  // The buffers of its socket and of the server fill up.
  const { image } = world.device.counters();
  assert.is(image.reads, 0);
  world.until(() => world.device.counters().image.reads > 8);
  world.ask("dropArea");
  const closed = world.ask("closeArea");
  world.until(() => closed.length > 0);
  assert.equal(closed, [{ isLate: false }]);
  assert.equal(world.errors, []);
  pair.close();
  world.close();
});

test("clients write to a front without a device, old data is saved first, and it ends on request", async () => {
  const exported = { ...PARAMS, readOnly: false, volatileCache: true };
  const world = new World({ exported, queueDepth: 16, maxIoBytes: BLOCK });
  world.device.start();
  world.take();
  const front = await Pair.make(world);
  assert.ok(world.serve(front.serverFd, null));
  assert.is(world.device.connections(null), 1);
  front.send(WRITE, 4096, 4096, Buffer.alloc(4096, 9));
  assert.is(front.received(CHUNK_HEADER).readUInt16BE(6), 0, "done, without an error");
  assert.is(world.device.counters().engine.copiedBytes, 4096);

  const image = await Pair.make(world);
  assert.ok(world.serve(image.serverFd, AREA));
  image.send(READ, 0, 8192);
  const old = image.received(CHUNK_HEADER + 8 + 8192).subarray(CHUNK_HEADER + 8);
  assert.ok(old.equals(Buffer.alloc(8192, 7)));
  const now = Buffer.alloc(8192);
  readSync(world.original, now, 0, 8192, 0);
  assert.equal([now[0], now[4096], now[8191]], [7, 9, 9]);

  world.ask("dropArea");
  const closed = world.ask("closeArea");
  world.until(() => closed.length > 0);
  let isEnded = false;
  world.device.awaitFrontEnd(() => {
    isEnded = true;
  });
  world.until(() => isEnded);
  assert.is(front.received(1).length, 0);
  assert.is(world.device.connections(null), 0);
  assert.equal(world.errors, []);
  for (const one of [image, front]) one.close();
  world.close();
});

/** Of base:allocation alone: lengths and flags, alternating. */
function allocation(pair: Pair, extents: number): number[] {
  pair.send(BLOCK_STATUS, 0, 4 * MIB);
  const status = pair.received(CHUNK_HEADER + 4 + 8 * extents);
  assert.is(status.readUInt32BE(16), 4 + 8 * extents);
  return Array.from({ length: 2 * extents }, (_, at) => status.readUInt32BE(24 + at * 4));
}

test("holes of the original are holes until they are written, and old data is no hole", async () => {
  const exported = { ...PARAMS, readOnly: false, volatileCache: true };
  const world = new World({ exported, queueDepth: 16, maxIoBytes: BLOCK });
  world.device.start();
  const writer = await Pair.make(world);
  assert.ok(world.serve(writer.serverFd, null));
  const write = (at: number): void => {
    writer.send(WRITE, at, 4096, Buffer.alloc(4096, 9));
    writer.received(CHUNK_HEADER);
  };
  // Written with number 1 and queried afterwards: nothing shows that the write came first.
  write(MIB);
  const ends = Float64Array.of(MIB, 2 * MIB, 3 * MIB, 4 * MIB);
  const holes = { ends, generation: new Uint8Array(16), number: 1 };
  const front = await Pair.make(world);
  assert.ok(world.serve(front.serverFd, null, ["base:allocation"], holes));
  const before = [MIB + BLOCK, 0, MIB - BLOCK, 3, MIB, 0, MIB, 3];
  assert.equal(allocation(front, 4), before);
  world.take();
  assert.equal(allocation(front, 4), before, "a take writes nothing");
  write(3 * MIB + BLOCK);
  const after = [...before.slice(0, 6), BLOCK, 3, BLOCK, 0, MIB - 2 * BLOCK, 3];
  assert.equal(allocation(front, 6), after);

  const image = await Pair.make(world);
  assert.ok(world.serve(image.serverFd, AREA, ["base:allocation"], holes));
  const atTake = [MIB, 0, MIB, 3, MIB, 0, BLOCK, 3, 4096, 0, MIB - BLOCK - 4096, 3];
  assert.equal(allocation(image, 6), atTake);
  write(MIB + 4096);
  assert.equal(allocation(image, 8).slice(0, 6), [MIB, 0, 4096, 3, 4096, 0]);

  const other = await Pair.make(world);
  const older = { ...holes, generation: new Uint8Array(16).fill(1) };
  assert.ok(world.serve(other.serverFd, null, ["base:allocation"], older));
  assert.equal(allocation(other, 1), [4 * MIB, 0], "of another generation nothing is known");

  world.ask("dropArea");
  assert.equal(allocation(image, 1), [4 * MIB, 0], "what is read as an error is not a hole");
  const closed = world.ask("closeArea");
  world.until(() => closed.length > 0);
  let isEnded = false;
  world.device.awaitFrontEnd(() => {
    isEnded = true;
  });
  world.until(() => isEnded);
  assert.equal(world.errors, []);
  for (const one of [writer, front, image, other]) one.close();
  world.close();
});

test.run();
