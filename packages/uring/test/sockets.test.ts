import { closeSync, statSync } from "node:fs";
import { connect, Socket } from "node:net";
import { join } from "node:path";
import {
  enlargeSendBuffer,
  ioctl,
  listenLocal,
  MappedMemory,
  MessageFlag,
  prepareAccept,
  prepareReceive,
  prepareSendMessage,
  prepareShutdown,
  Ring,
  socketPair,
  UringError,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { at, popCompletions, withFolderMeanwhile } from "./support.js";

const EADDRINUSE = 98;
const ENAMETOOLONG = 36;
/** What a socket holds that its other side has not taken. */
const SIOCOUTQ = 0x5411;

/** A `struct msghdr` at byte 0 over the parts, whose vector follows it. */
function describeMessage(
  memory: MappedMemory,
  parts: [offsetBytes: number, length: number][],
): void {
  const view = new DataView(memory.buffer);
  view.setBigUint64(16, BigInt(memory.address + 64), true);
  view.setBigUint64(24, BigInt(parts.length), true);
  for (const [index, [offset, length]] of parts.entries()) {
    view.setBigUint64(64 + index * 16, BigInt(memory.address + offset), true);
    view.setBigUint64(72 + index * 16, BigInt(length), true);
  }
}

test("a pair of sockets is connected with each other", async () => {
  const [one, other] = socketPair().map((fd) => new Socket({ fd }));
  other.end("ping");
  let text = "";
  for await (const part of one) text += String(part);
  assert.is(text, "ping");
  one.destroy();
});

test("a send buffer that is enlarged takes more at a time", async () => {
  const taken = async (bytes: number): Promise<number> => {
    const [fd, other] = socketPair();
    enlargeSendBuffer(fd, bytes);
    const socket = new Socket({ fd });
    socket.on("error", () => undefined);
    socket.write(Buffer.alloc(2 ** 22));
    const queued = new Int32Array(1);
    assert.is(ioctl(fd, SIOCOUTQ, queued), 0);
    socket.destroy();
    closeSync(other);
    return queued[0]!;
  };
  const [few, more] = [await taken(2 ** 16), await taken(2 ** 18)];
  assert.ok(few > 0 && more > 1.5 * few, `${few} and ${more} bytes`);
  // What is not a socket stays as it is.
  enlargeSendBuffer(-1, 2 ** 16);
});

test("a connection is accepted, used and shut down, all by the ring", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "socket");
    const listener = listenLocal(path, 0o600);
    assert.is(statSync(path).mode & 0o777, 0o600);
    const ring = new Ring({ entries: 8 });
    const memory = MappedMemory.anonymous(8192);
    const bytes = Buffer.from(memory.buffer);
    const client = connect(path);
    client.write("ping");
    const received = new Promise<string>((resolve) => {
      let text = "";
      client.on("data", (part) => (text += part.toString()));
      client.on("close", () => resolve(text));
    });
    await new Promise((resolve) => client.once("connect", resolve));
    prepareAccept(ring, listener, 1, 0);
    const [accepted] = popCompletions(ring, 1);
    assert.ok(accepted.result > 0);
    const fd = accepted.result;
    prepareReceive(ring, fd, ...at(memory, 4096), 4, MessageFlag.WAITALL, 2, 0);
    assert.equal(popCompletions(ring, 1), [{ low: 2, high: 0, result: 4 }]);
    assert.is(bytes.toString("latin1", 4096, 4100), "ping");
    bytes.write("pong, and more", 5000);
    describeMessage(memory, [
      [5000, 4],
      [5006, 8],
    ]);
    prepareSendMessage(ring, fd, ...at(memory, 0), MessageFlag.NOSIGNAL, 3, 0);
    assert.equal(popCompletions(ring, 1), [{ low: 3, high: 0, result: 12 }]);
    prepareShutdown(ring, fd, 4, 0);
    assert.equal(popCompletions(ring, 1), [{ low: 4, high: 0, result: 0 }]);
    assert.is(await received, "pongand more");
    closeSync(fd);
    closeSync(listener);
    ring.close();
    memory.unmap();
  });
});

test("a path that is taken, and one that is too long, are errors", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "socket");
    const listener = listenLocal(path, 0o600);
    const failsWith = (errno: number) => (error: unknown) =>
      error instanceof UringError && error.code === "SYSTEM_CALL_FAILED" && error.errno === errno;
    assert.throws(() => listenLocal(path, 0o600), failsWith(EADDRINUSE));
    assert.throws(() => listenLocal(join(folder, "x".repeat(108)), 0o600), failsWith(ENAMETOOLONG));
    closeSync(listener);
  });
});

test.run();
