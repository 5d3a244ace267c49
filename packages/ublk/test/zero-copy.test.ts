/** Entries of a queue with zero copy, as the kernel sees them; how the kernel handles them is in sim-kernel's tests. */
import {
  IO_RES_ABORT,
  NOT_REGISTERED,
  Queue,
  type Target,
  UblkIoFlag,
  UblkOp,
} from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { IoCommand } from "../dist/abi.js";
import { FakeCharacterDevice, FakeReactor } from "./fake-reactor.js";

const DEPTH = 4;
const QUEUE_ID = 2;
const MAX_IO = 8192;
const EIO = 5;
const [READ, WRITE] = [22, 23];
const FALLBACK = 1 << 16;
const { NEED_REG_BUF } = UblkIoFlag;

class World {
  readonly reactor = new FakeReactor();
  readonly device = new FakeCharacterDevice();
  readonly calls: string[] = [];
  readonly queue: Queue;

  constructor() {
    this.queue = new Queue({
      reactor: this.reactor.asReactor(),
      charFd: this.device.fd,
      queueId: QUEUE_ID,
      depth: DEPTH,
      maxIoBytes: MAX_IO,
      zeroCopy: true,
      onEnd: () => this.calls.push("end"),
      onError: (error) => this.calls.push((error as Error).message),
    });
    const target: Target = {
      queueIo: (tag) => this.calls.push(`io ${tag} in ${this.queue.bufferIndex[tag]}`),
      close: () => this.calls.push("close"),
    };
    this.queue.start(target);
  }

  /** A request comes. */
  request(tag: number, opFlags: number): void {
    this.device.describe(QUEUE_ID, tag, opFlags, 8, 0n);
    this.reactor.handlers[1]?.onCompletion(tag, 0, 0);
  }

  /** Bytes were moved. */
  moved(tag: number, result: number): void {
    this.reactor.handlers[0]?.onCompletion(tag, result, 0);
  }

  end(): void {
    for (let tag = 0; tag < DEPTH; tag++)
      this.reactor.handlers[1]?.onCompletion(tag, IO_RES_ABORT, 0);
    this.device.close();
  }
}

/** Where the driver has the bytes of a request. */
function bytesOf(tag: number): bigint {
  return 0x8000_0000n + (BigInt(QUEUE_ID) << 41n) + (BigInt(tag) << 25n);
}

test("each command names its tag's place, and no buffer; a tag without one names a place that is not there", () => {
  const world = new World();
  const fetches = world.reactor.takeCommands();
  assert.equal(
    fetches.map(({ entryAddressLow }) => entryAddressLow),
    [70, 71, 72, 0xffff].map((place) => place | FALLBACK),
  );
  assert.ok(fetches.every(({ op, addressLow }) => op === IoCommand.FETCH_REQ && addressLow === 0));
  world.request(1, UblkOp.WRITE);
  assert.equal(world.calls, ["io 1 in 71"]);
  assert.equal([world.queue.bufferLow[1], world.queue.bufferHigh[1]], [0, 0]);
  world.queue.complete(1, 4096);
  const [commit] = world.reactor.takeCommands();
  assert.is(commit.op, IoCommand.COMMIT_AND_FETCH_REQ);
  assert.equal(
    [commit.entryAddressLow, commit.addressLow, commit.result],
    [71 | FALLBACK, 0, 4096],
  );
  assert.throws(() => world.queue.bufferBytes(1), /has no buffer/);
  world.end();
  assert.equal(world.calls.slice(1), ["close", "end"]);
  assert.equal([world.reactor.places, world.reactor.buffers.size], [0, 0]);
});

test("a write whose pages could not be registered is copied before the target sees it", () => {
  const world = new World();
  world.reactor.takeCommands();
  world.request(3, UblkOp.WRITE | NEED_REG_BUF);
  assert.equal(world.calls, []);
  const [move] = world.reactor.takeCommands();
  assert.equal([move.opcode, move.offset, move.lengthBytes], [READ, bytesOf(3), 4096]);
  assert.is(move.entryAddressLow, world.queue.bufferLow[3]);
  world.moved(3, 4096);
  assert.equal(world.calls, [`io 3 in ${NOT_REGISTERED}`]);
  world.queue.complete(3, 4096);
  assert.is(world.reactor.takeCommands()[0].op, IoCommand.COMMIT_AND_FETCH_REQ);
  world.request(3, UblkOp.WRITE);
  assert.is(world.queue.bufferLow[3], 0, "the next one has pages again");
  world.end();
});

test("a read whose pages could not be registered completes after its bytes are copied", () => {
  const world = new World();
  world.reactor.takeCommands();
  world.request(0, UblkOp.READ | NEED_REG_BUF);
  assert.equal(world.calls, [`io 0 in ${NOT_REGISTERED}`]);
  world.queue.complete(0, 4096);
  const [move] = world.reactor.takeCommands();
  assert.equal([move.opcode, move.offset, move.lengthBytes], [WRITE, bytesOf(0), 4096]);
  assert.is(move.entryAddressLow, world.queue.bufferLow[0]);
  world.moved(0, 4096);
  const [commit] = world.reactor.takeCommands();
  assert.equal([commit.op, commit.result], [IoCommand.COMMIT_AND_FETCH_REQ, 4096]);
  world.request(0, UblkOp.READ | NEED_REG_BUF);
  world.queue.complete(0, -EIO);
  assert.is(world.reactor.takeCommands()[0].result, -EIO, "an error has no bytes");
  world.end();
});

test("a failed copy is the request's error", () => {
  const world = new World();
  world.reactor.takeCommands();
  world.request(2, UblkOp.WRITE | NEED_REG_BUF);
  world.moved(2, 512);
  assert.equal(world.calls, []);
  assert.is(world.reactor.takeCommands().at(-1)?.result, -EIO);
  world.request(2, UblkOp.READ | NEED_REG_BUF);
  world.queue.complete(2, 4096);
  world.moved(2, -14);
  assert.is(world.reactor.takeCommands().at(-1)?.result, -14);
  world.end();
});

test("a copy without memory or thread in io_uring is retried", () => {
  const world = new World();
  const { reactor, queue } = world;
  reactor.takeCommands();
  for (const [op, errno] of [
    [UblkOp.WRITE, 12],
    [UblkOp.READ, 125],
  ]) {
    world.calls.length = 0;
    world.request(1, op | NEED_REG_BUF);
    if (op === UblkOp.READ) queue.complete(1, 4096);
    const [first] = reactor.takeCommands();
    world.moved(1, -errno);
    assert.equal(reactor.takeCommands(), []);
    for (const pass of reactor.timers.splice(0)) pass();
    assert.equal(reactor.takeCommands(), [first]);
    world.moved(1, 4096);
    assert.equal(world.calls, [`io 1 in ${NOT_REGISTERED}`]);
    if (op === UblkOp.WRITE) queue.complete(1, 4096);
    assert.is(reactor.takeCommands()[0].result, 4096);
  }
  world.end();
});

test("a copy can be requested once, and the caller is notified", () => {
  const world = new World();
  world.reactor.takeCommands();
  const told: number[][] = [];
  const then = { onCopied: (tag: number, result: number) => told.push([tag, result]) };
  world.request(1, UblkOp.WRITE);
  assert.ok(world.queue.copyRequest(1, then));
  assert.not.ok(world.queue.copyRequest(1, then));
  world.moved(1, 4096);
  world.request(2, UblkOp.READ);
  assert.ok(world.queue.copyRequest(2, then));
  assert.equal(told, [
    [1, 0],
    [2, 0],
  ]);
  assert.equal(world.calls, ["io 1 in 71", "io 2 in 72"], "the target has them once");
  world.end();
});

test.run();
