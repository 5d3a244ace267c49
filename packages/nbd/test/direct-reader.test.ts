/**
 * Bytes that are read past a socket's stream equal the sent ones, however they are split, and whichever side is
 * slower.
 */
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { Dice, eventually } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DirectReader } from "../dist/direct-reader.js";
import { rejectsWith, withFolder } from "./support.js";

const MIB = 2 ** 20;

interface Pair {
  readonly sender: Socket;
  readonly socket: Socket;
  readonly reader: DirectReader;
}

async function withPair(use: (pair: Pair) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const path = join(folder, "socket");
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const { socket, reader } = DirectReader.connect({ path });
    const sender = await accepted;
    sender.on("error", () => undefined);
    try {
      await use({ sender, socket, reader });
    } finally {
      socket.destroy();
      sender.destroy();
      await new Promise((resolve) => server.close(resolve));
    }
  });
}

/** Bytes that encode their offset. */
function pattern(bytes: number): Buffer {
  const all = Buffer.alloc(bytes);
  for (let at = 0; at + 4 <= bytes; at += 4) all.writeUInt32LE(at, at);
  return all;
}

/** Lengths around those at which a read takes another path. */
function lengthOf(dice: Dice): number {
  const near = dice.pick([1, 16, 28, 4096, 32_768, 65_536, 131_072, MIB]);
  return Math.max(0, near + dice.below(5) - 2);
}

async function sendInPieces(sender: Socket, data: Buffer, dice: Dice): Promise<void> {
  for (let at = 0; at < data.length; ) {
    const end = Math.min(data.length, at + lengthOf(dice) + 1);
    const isRoom = sender.write(data.subarray(at, end));
    at = end;
    if (!isRoom) await new Promise((resolve) => sender.once("drain", resolve));
    else if (dice.below(3) === 0) await turn();
  }
}

test("pieces and reads may have any length", async () => {
  const seed = Math.floor(Math.random() * 2 ** 32);
  for (let round = 0; round < 20; round++) {
    await withPair(async ({ sender, reader }) => {
      const dice = new Dice(seed + round);
      const data = pattern(4 * MIB);
      const sent = sendInPieces(sender, data, dice);
      const found = Buffer.alloc(data.length);
      for (let at = 0; at < data.length; ) {
        const end = Math.min(data.length, at + lengthOf(dice));
        await reader.readInto(found.subarray(at, end));
        at = end;
        for (let turns = dice.below(4); turns > 0; turns--) await turn();
      }
      await sent;
      assert.ok(found.equals(data), `seed ${seed}, round ${round}`);
    });
  }
});

test("unread data stays in place for later", async () => {
  await withPair(async ({ sender, socket, reader }) => {
    const data = pattern(8 * MIB);
    sender.write(data);
    await eventually("no more is taken", async () => {
      const before = socket.bytesRead;
      for (let turns = 0; turns < 20; turns++) await turn();
      return before > 0 && socket.bytesRead === before;
    });
    assert.ok(socket.bytesRead < MIB, `${socket.bytesRead} bytes`);
    assert.ok((await reader.read(data.length)).equals(data));
  });
});

test("only data from before the end can be read", async () => {
  await withPair(async ({ sender, reader }) => {
    const data = pattern(200_000);
    sender.end(data);
    assert.ok((await reader.read(100_000)).equals(data.subarray(0, 100_000)));
    await rejectsWith(reader.read(100_001), "CONNECTION_LOST");
    await rejectsWith(reader.read(1), "CONNECTION_LOST");
  });
});

test("a pending read fails with the socket's error", async () => {
  await withPair(async ({ socket, reader }) => {
    const waiting = reader.read(MIB);
    socket.destroy(new Error("given up"));
    const error = await waiting.catch((thrown: unknown) => thrown);
    assert.match(String(error), "given up");
  });
});

test.run();
