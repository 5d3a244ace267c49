import { IO_RES_ABORT, Queue, type Target, UblkIoFlag, UblkOp } from "@blksnap/ublk";
import { MappedMemory } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { IoCommand } from "../dist/abi.js";
import { FakeCharacterDevice, FakeReactor, mappings } from "./fake-reactor.js";

const DEPTH = 4;
const MAX_IO = 8192;
const EIO = 5;

interface Setup {
  readonly reactor: FakeReactor;
  readonly device: FakeCharacterDevice;
  readonly queue: Queue;
  readonly calls: string[];
  /** The end of a command of the tag. */
  complete(tag: number, result: number): void;
}

function withQueue(
  queueIo: (queue: Queue, tag: number) => void,
  use: (setup: Setup) => void,
): void {
  const reactor = new FakeReactor();
  const device = new FakeCharacterDevice();
  const calls: string[] = [];
  const queue = new Queue({
    reactor: reactor.asReactor(),
    charFd: device.fd,
    queueId: 2,
    depth: DEPTH,
    maxIoBytes: MAX_IO,
    onEnd: () => calls.push("end"),
    onError: (error) => calls.push((error as Error).message),
  });
  const target: Target = {
    queueIo: (tag) => {
      calls.push(`io ${tag}`);
      queueIo(queue, tag);
    },
    close: () => calls.push("close"),
  };
  queue.start(target);
  const complete = (tag: number, result: number): void =>
    reactor.handlers[0]?.onCompletion(tag, result, 0);
  use({ reactor, device, queue, calls, complete });
  device.close();
}

test("starting fetches every tag into its own part of the buffer", () => {
  withQueue(
    () => undefined,
    ({ reactor, queue }) => {
      const commands = reactor.takeCommands();
      assert.is(commands.length, DEPTH);
      commands.forEach((command, tag) => {
        assert.is(command.op, IoCommand.FETCH_REQ);
        assert.equal([command.queueId, command.tag, command.userLow], [2, tag, tag]);
        assert.is((command.addressLow - queue.bufferLow[0]) | 0, tag * MAX_IO);
      });
    },
  );
});

test("tags are fetched by one call, and descriptors are mapped after it", () => {
  const own = mappings() + 1;
  withQueue(
    () => undefined,
    ({ reactor }) => {
      assert.equal(reactor.calls, [`reserve ${DEPTH}`, `submit as anybody with ${own} mappings`]);
      assert.is(mappings(), own + 1);
    },
  );
});

test("a queue whose descriptors cannot be mapped ends with its device", () => {
  const device = new FakeCharacterDevice();
  const reactor = new FakeReactor();
  const calls: string[] = [];
  const queue = new Queue({
    reactor: reactor.asReactor(),
    charFd: -1,
    queueId: 0,
    depth: DEPTH,
    maxIoBytes: MAX_IO,
    onEnd: () => calls.push("end"),
    onError: (error) => calls.push((error as Error).message),
  });
  assert.throws(() => queue.start({ queueIo: () => undefined, close: () => calls.push("close") }));
  assert.is(reactor.takeCommands().length, DEPTH);
  for (let tag = 0; tag < DEPTH; tag++) reactor.handlers[0]?.onCompletion(tag, IO_RES_ABORT, 0);
  assert.equal(calls, ["close", "end"]);
  assert.is(reactor.buffers.size, 0);
  device.close();
});

test("a request's fields are read where the kernel writes them", () => {
  withQueue(
    () => undefined,
    ({ device, queue, complete }) => {
      const flags = UblkIoFlag.FUA | UblkIoFlag.NOUNMAP;
      device.describe(2, 3, UblkOp.WRITE | flags, 16, 0x5_8000_0001n);
      complete(3, 0);
      assert.is(queue.op(3), UblkOp.WRITE);
      assert.is(queue.flags(3), flags);
      assert.is(queue.sectors(3), 16);
      assert.is(queue.startSectorLow(3), 0x8000_0001 | 0);
      assert.is(queue.startSectorHigh(3), 5);
      assert.is(queue.bufferBytes(3).length, MAX_IO);
      assert.is(queue.requests, 1);
    },
  );
});

test("an answer commits the result and fetches the tag again", () => {
  withQueue(
    (queue, tag) => queue.complete(tag, 4096),
    ({ reactor, complete }) => {
      reactor.takeCommands();
      complete(1, 0);
      const [command] = reactor.takeCommands();
      assert.is(command.op, IoCommand.COMMIT_AND_FETCH_REQ);
      assert.equal([command.tag, command.result], [1, 4096]);
    },
  );
});

test("the next request is expected when the last one that the server has is answered", () => {
  withQueue(
    () => undefined,
    ({ reactor, queue, complete }) => {
      complete(0, 0);
      complete(1, 0);
      queue.complete(0, 0);
      assert.not(reactor.isRequestExpected);
      queue.complete(1, 0);
      assert.ok(reactor.isRequestExpected);
      complete(0, 0);
      assert.not(reactor.isRequestExpected);
    },
  );
});

test("a request is completed once", () => {
  withQueue(
    () => undefined,
    ({ queue, complete }) => {
      assert.throws(() => queue.complete(0, 0), /answered twice/);
      complete(0, 0);
      queue.complete(0, 0);
      assert.throws(() => queue.complete(0, 0), /answered twice/);
    },
  );
});

test("an exception of the target is -EIO, and is reported", () => {
  withQueue(
    () => {
      throw new Error("defect");
    },
    ({ reactor, calls, complete }) => {
      reactor.takeCommands();
      complete(2, 0);
      assert.is(reactor.takeCommands()[0].result, -EIO);
      assert.equal(calls, ["io 2", "defect"]);
    },
  );
});

test("an exception after the answer does not answer again", () => {
  withQueue(
    (queue, tag) => {
      queue.complete(tag, 0);
      throw new Error("defect");
    },
    ({ reactor, complete }) => {
      reactor.takeCommands();
      complete(2, 0);
      assert.is(reactor.takeCommands().length, 1);
    },
  );
});

test("the queue ends when every command has returned, and frees everything", () => {
  withQueue(
    () => undefined,
    ({ reactor, queue, calls, complete }) => {
      const before = mappings();
      complete(0, 0);
      for (const tag of [1, 2, 3]) complete(tag, IO_RES_ABORT);
      assert.equal(calls, ["io 0"]);
      queue.complete(0, 0);
      complete(0, IO_RES_ABORT);
      assert.equal(calls, ["io 0", "close", "end"]);
      assert.is(reactor.handlers[0], undefined);
      assert.is(reactor.buffers.size, 0);
      assert.is(mappings(), before - 1);
    },
  );
});

test("a tag gets another buffer with the answer to its request, others keep theirs", () => {
  withQueue(
    () => undefined,
    ({ reactor, queue, complete }) => {
      reactor.takeCommands();
      const memory = MappedMemory.anonymous(MAX_IO);
      const before = queue.bufferLow[2];
      complete(1, 0);
      queue.replaceBuffer(1, memory);
      queue.complete(1, -EIO);
      const [command] = reactor.takeCommands();
      assert.is(command?.addressLow, memory.address | 0);
      assert.is(queue.bufferLow[2], before);
      queue.bufferBytes(1).fill(7);
      assert.is(new Uint8Array(memory.buffer)[MAX_IO - 1], 7);
      for (const tag of [0, 1, 2, 3]) complete(tag, IO_RES_ABORT);
      assert.is(memory.buffer.byteLength, MAX_IO);
      memory.unmap();
    },
  );
});

test("retained buffers outlive the queue", () => {
  withQueue(
    () => undefined,
    ({ queue, calls, complete }) => {
      const bytes = queue.bufferBytes(0);
      queue.keepBuffers();
      queue.keepBuffers();
      for (const tag of [0, 1, 2, 3]) complete(tag, IO_RES_ABORT);
      assert.equal(calls, ["close", "end"]);
      queue.releaseBuffers();
      assert.is(bytes.length, MAX_IO);
      queue.releaseBuffers();
      assert.is(bytes.length, 0);
      assert.throws(() => queue.releaseBuffers());
    },
  );
});

test("a command that the kernel refuses is reported, and its tag counts as ended", () => {
  withQueue(
    () => undefined,
    ({ calls, complete }) => {
      complete(0, -22);
      for (const tag of [1, 2, 3]) complete(tag, IO_RES_ABORT);
      assert.equal(calls, ["ublk refused the command of tag 0: -22", "close", "end"]);
    },
  );
});

test("a queue that was not started can be closed, one that cannot be created leaves nothing", () => {
  const device = new FakeCharacterDevice();
  const before = mappings();
  const reactor = new FakeReactor();
  const options = {
    charFd: device.fd,
    queueId: 0,
    onEnd: () => undefined,
    onError: () => undefined,
  };
  const common = { ...options, reactor: reactor.asReactor() };
  new Queue({ ...common, depth: DEPTH, maxIoBytes: MAX_IO }).discard();
  assert.is(reactor.buffers.size, 0);
  assert.throws(
    () => new Queue({ ...common, depth: 4096, maxIoBytes: 32 << 20 }),
    /mapping length/,
  );
  assert.is(mappings(), before);
  device.close();
});

test.run();
