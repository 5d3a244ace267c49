/** NBD connections of a front and of an image, on a real ring, with files in memory in place of devices. */
import { closeSync, ftruncateSync, mkdtempSync, readSync, rmSync, writeSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { CbtMap, DiffAreaMap } from "@blksnap/engine";
import {
  createMemoryFile,
  listenLocal,
  MappedMemory,
  PromiseRing,
  prepareAccept,
  Reactor,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import type { KnownHoles } from "../dist/allocation-context.js";
import { carryOutArea } from "../dist/area-requests.js";
import type { DeviceQueueStart } from "../dist/device-queue.js";
import { IoTicker } from "../dist/io-ticker.js";
import type { ReactorNotice } from "../dist/messages.js";
import { TrackedDevice } from "../dist/tracked-device.js";
import { reactorSettings, SLOTS } from "./device-settings.js";

const MIB = 2 ** 20;
const BLOCK = 65_536;
const AREA = "11111111-1111-4111-8111-111111111111";
const GEOMETRY = {
  capacityBytes: 4 * MIB,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
const PARAMS = {
  capacityBytes: GEOMETRY.capacityBytes,
  logicalBlockBytes: 512,
  physicalBlockBytes: 512,
  ioMinBytes: 512,
  ioOptBytes: 0,
  readOnly: true,
  rotational: false,
  volatileCache: false,
  fua: false,
  discardMaxBytes: 0,
  discardGranularityBytes: 0,
  writeZeroesMaxBytes: 0,
};
const READ = 0;
const WRITE = 1;
const BLOCK_STATUS = 7;
/** Ends what hangs. */
const LIMIT_MS = 600_000;
const EAGAIN = "EAGAIN";

function file(name: string, lengthBytes: number): number {
  const fd = createMemoryFile(name);
  ftruncateSync(fd, lengthBytes);
  return fd;
}

/** A tracked device that has been written to, once before its take. */
class World {
  readonly errors: unknown[] = [];
  readonly original: number = file("original", GEOMETRY.capacityBytes);
  readonly reactor: Reactor;
  readonly device: TrackedDevice;
  readonly #port = new MessageChannel();
  #isOver = false;

  /** @param queue of the front: without a device it is an export that clients write to */
  constructor(
    queue: DeviceQueueStart = { charFd: file("ublkc", MIB), queueDepth: 4, maxIoBytes: BLOCK },
  ) {
    this.reactor = new Reactor({
      wakeFd: native.eventFd(0, 0o2000000),
      port: this.#port.port2,
      onMessage: () => undefined,
      onError: (error) => this.errors.push(error),
    });
    // A turn may wait for ever.
    this.reactor.setTimer(LIMIT_MS, () => {
      this.#isOver = true;
    });
    const settings = reactorSettings();
    const ticker = new IoTicker(this.reactor, settings.ioTimeoutMs);
    const notify = (notice: ReactorNotice): void => {
      if (notice.notice === "error") this.errors.push(notice.message);
    };
    writeSync(this.original, Buffer.alloc(GEOMETRY.capacityBytes, 7), 0, MIB * 4, 0);
    const lengthBytes = CbtMap.byteLength(GEOMETRY.capacityBytes, 16);
    const cbt = file("cbt", lengthBytes);
    CbtMap.create(MappedMemory.file(cbt, 0, lengthBytes).buffer, {
      capacityBytes: GEOMETRY.capacityBytes,
      blockShift: 16,
      generation: new Uint8Array(16),
    });
    const request = {
      type: "attach" as const,
      tracker: 1,
      queue,
      originalFd: this.original,
      isBlock: false,
      geometry: GEOMETRY,
      cbt: { fd: cbt, lengthBytes },
      area: undefined,
    };
    this.device = new TrackedDevice(this.reactor, settings, request, ticker, notify);
  }

  take(): void {
    const mapBytes = DiffAreaMap.byteLength(GEOMETRY);
    this.device.prepareArea({
      id: AREA,
      map: { fd: file("map", mapBytes), lengthBytes: mapBytes },
      storeCount: 1,
      storeFds: [file("store", MIB)],
      ...SLOTS,
      slotBytes: 2 ** GEOMETRY.chunkShift,
    });
    this.device.hold(10_000, () => undefined);
    this.device.switchAndRelease(AREA);
  }

  /** Turns of the reactor, of which each brings something, until it is so. */
  until(isSo: () => boolean): void {
    while (!isSo()) {
      assert.not(this.#isOver, `not so within ${LIMIT_MS} ms`);
      this.reactor.turn();
    }
  }

  serve(
    fd: number,
    area: string | null,
    contexts: string[] = [],
    holes: KnownHoles | null = null,
  ): boolean {
    const told: boolean[] = [];
    const given = { structured: true, contexts, holes, received: new Uint8Array(0) };
    this.device.serveNbd(
      { type: "serveNbd", tracker: 1, area, params: PARAMS, fd, ...given },
      (isServed) => told.push(isServed),
    );
    this.until(() => told.length > 0);
    return told[0] === true;
  }

  ask(type: "dropArea" | "closeArea"): unknown[] {
    const answers: unknown[] = [];
    const request = { type, tracker: 1, area: AREA };
    carryOutArea(
      this.device,
      request,
      (answer) => answers.push(answer),
      () => true,
    );
    return answers;
  }

  close(): void {
    this.#port.port1.close();
  }
}

/** Two ends of a connection. What comes is only read by received(). */
class Pair {
  readonly serverFd: number;
  readonly #world: World;
  readonly #socket: Socket;
  readonly #fd: number;

  private constructor(world: World, serverFd: number, socket: Socket) {
    this.#world = world;
    this.serverFd = serverFd;
    this.#socket = socket;
    this.#fd = (socket as unknown as { _handle: { fd: number } })._handle.fd;
  }

  static async make(world: World): Promise<Pair> {
    const folder = mkdtempSync(join(tmpdir(), "nbd-"));
    const ring = new PromiseRing();
    try {
      const path = join(folder, "s");
      const listenFd = listenLocal(path, 0o600);
      const socket = connect(path);
      socket.pause();
      await new Promise((done) => socket.once("connect", done));
      const fd = await ring.submit((on, low, high) => prepareAccept(on, listenFd, low, high));
      closeSync(listenFd);
      return new Pair(world, fd, socket);
    } finally {
      ring.close();
      rmSync(folder, { recursive: true });
    }
  }

  send(type: number, offset: number, length: number, payload: Buffer = Buffer.alloc(0)): void {
    const request = Buffer.alloc(28);
    request.writeUInt32BE(0x25609513);
    request.writeUInt16BE(type, 6);
    request.writeBigUInt64BE(1n, 8);
    request.writeUInt32BE(offset, 20);
    request.writeUInt32BE(length, 24);
    writeSync(this.#fd, Buffer.concat([request, payload]));
  }

  /** So many bytes, or those until the end. */
  received(bytes: number): Buffer {
    const all = Buffer.alloc(bytes);
    let have = 0;
    let isOver = false;
    this.#world.until(() => {
      try {
        const count = readSync(this.#fd, all, have, bytes - have, null);
        have += count;
        isOver = count === 0;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== EAGAIN) throw error;
      }
      return isOver || have === bytes;
    });
    return all.subarray(0, have);
  }

  close(): void {
    this.#socket.destroy();
  }
}

const CHUNK_HEADER = 20;

test("an image and its front are read, and its end ends its connections", async () => {
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
  for (const one of [image, front, late]) one.close();
  world.close();
});

test("a client that takes no replies does not hold up the end of its image", async () => {
  const world = new World();
  world.take();
  const pair = await Pair.make(world);
  assert.ok(world.serve(pair.serverFd, AREA));
  for (let at = 0; at < 64; at++) pair.send(READ, 0, MIB);
  // What its socket holds, and what the server may have for it, is full at some time.
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

test("a front without a device is written to by its clients, old data first, and ends when it is told", async () => {
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

/** Of base:allocation alone: lengths and flags by turns. */
function allocation(pair: Pair, extents: number): number[] {
  pair.send(BLOCK_STATUS, 0, 4 * MIB);
  const status = pair.received(CHUNK_HEADER + 4 + 8 * extents);
  assert.is(status.readUInt32BE(16), 4 + 8 * extents);
  return Array.from({ length: 2 * extents }, (_, at) => status.readUInt32BE(24 + at * 4));
}

test("holes of the original are holes until somebody writes there, and old data is none", async () => {
  const exported = { ...PARAMS, readOnly: false, volatileCache: true };
  const world = new World({ exported, queueDepth: 16, maxIoBytes: BLOCK });
  world.device.start();
  const writer = await Pair.make(world);
  assert.ok(world.serve(writer.serverFd, null));
  const write = (at: number): void => {
    writer.send(WRITE, at, 4096, Buffer.alloc(4096, 9));
    writer.received(CHUNK_HEADER);
  };
  // Written with number 1, and only then looked at; nothing tells that it was before.
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
