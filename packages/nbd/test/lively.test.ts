/** When a server expects a request: its reactor then looks for one before it sleeps. */
import { closeSync, readSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { ReactorServer } from "@blksnap/nbd";
import type { Target } from "@blksnap/ublk";
import { createEventFd, Reactor, socketPair } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PLAIN_PARAMS } from "./support.js";

const REQUEST_BYTES = 28;
const REPLY_BYTES = 16;
const WRITE_BYTES = 4096;
const NAME = "disk";

function writeRequest(): Buffer {
  const bytes = Buffer.alloc(REQUEST_BYTES + WRITE_BYTES);
  bytes.writeUInt32BE(0x25609513);
  bytes.writeUInt16BE(1, 6);
  bytes.writeUInt32BE(WRITE_BYTES, 24);
  return bytes;
}

test("a request is expected after the reply to the last one in flight, by any client", () => {
  const channel = new MessageChannel();
  const errors: unknown[] = [];
  const wakeFd = createEventFd();
  const reactor = new Reactor({
    ...{ wakeFd, port: channel.port2 },
    onMessage: () => undefined,
    onError: (error) => errors.push(error),
  });
  let isExpected = false;
  reactor.expectRequest = (isSoon) => {
    isExpected = isSoon;
  };
  const server = new ReactorServer({ reactor, onError: (error) => errors.push(error) });
  const held: number[] = [];
  const target: Target = { queueIo: (tag) => held.push(tag), close: () => undefined };
  server.add({ name: NAME, readOnly: false }, PLAIN_PARAMS, target);
  const clients = [socketPair(), socketPair()];
  const adoption = { exportName: NAME, structured: false, contexts: [], received: Buffer.alloc(0) };
  for (const [own] of clients) assert.ok(server.adopt(own, adoption));
  for (const [index, [, theirs]] of clients.entries()) {
    writeSync(theirs, writeRequest());
    while (held.length <= index) reactor.turn();
    assert.not(isExpected);
  }
  for (const [index, [, theirs]] of clients.entries()) {
    server.queue.complete(held[index] as number, WRITE_BYTES);
    reactor.turn();
    assert.is(readSync(theirs, Buffer.alloc(REPLY_BYTES)), REPLY_BYTES);
    assert.is(isExpected, index === 1);
  }
  let isOver = false;
  server.stop(() => {
    isOver = true;
  });
  while (!isOver) reactor.turn();
  assert.equal(errors, []);
  for (const [, theirs] of clients) closeSync(theirs);
  channel.port1.close();
  reactor.stop();
  reactor.turn();
  closeSync(wakeFd);
});

test.run();
