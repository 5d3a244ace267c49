/** Clients that break every rule get errors by the protocol, or no connection, and disturb no other client. */
import { connect } from "node:net";
import { NbdClient } from "@blksnap/nbd";
import { eventually, nbdOption, u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { golden, MIB, RawClient, ramDisk, request, undisturbed, withServer } from "./support.js";

const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;
const EOVERFLOW = 75;

test("forbidden requests get their errors, and the next one is served", async () => {
  const cases: [what: string, error: number, bytes: Buffer][] = [
    ["an unknown command", EINVAL, request({ type: 99 })],
    ["command 256", EINVAL, request({ type: 256, length: 512 })],
    ["resize", EINVAL, request({ type: 8, length: 512 })],
    ["an unknown flag", EINVAL, request({ type: 0, flags: 0x8000, length: 512 })],
    ["a fast zero", EINVAL, request({ type: 6, flags: 0x10, length: 512 })],
    ["a read past the end", EINVAL, request({ type: 0, offset: BigInt(8 * MIB), length: 512 })],
    [
      "a read at the end of numbers",
      EINVAL,
      request({ type: 0, offset: 2n ** 64n - 512n, length: 512 }),
    ],
    ["a length past the end", EINVAL, request({ type: 0, length: 8 * MIB + 512 })],
    ["a read of no byte", EINVAL, request({ type: 0 })],
    ["a read of 4 GiB", EINVAL, request({ type: 0, length: 0xfffffe00 })],
    ["a read that is not aligned", EINVAL, request({ type: 0, offset: 1n, length: 512 })],
    ["a length that is not aligned", EINVAL, request({ type: 0, length: 511 })],
    ["a flush of something", EINVAL, request({ type: 3, length: 512 })],
    ["a trim past the end", EINVAL, request({ type: 4, offset: BigInt(8 * MIB), length: 512 })],
    ["zeroes past the end", ENOSPC, request({ type: 6, offset: BigInt(8 * MIB), length: 512 })],
    ["status without a context", EINVAL, request({ type: 7, length: 512 })],
    ["too much in one piece", EOVERFLOW, request({ type: 0, flags: 4, length: MIB })],
    [
      "a write past the end",
      ENOSPC,
      Buffer.concat([
        request({ type: 1, offset: BigInt(8 * MIB), length: MIB }),
        Buffer.alloc(MIB),
      ]),
    ],
    [
      "a write that is not aligned",
      EINVAL,
      Buffer.concat([request({ type: 1, offset: 3n, length: 70_001 }), Buffer.alloc(70_001)]),
    ],
    [
      "a write of 33 MiB",
      ENOSPC,
      Buffer.concat([request({ type: 1, length: 33 * MIB }), Buffer.alloc(33 * MIB)]),
    ],
  ];
  await withServer([ramDisk(8 * MIB)], async (server) => {
    for (const isStructured of [true, false]) {
      const raw = new RawClient(server.socketPath);
      await raw.begin("disk", isStructured);
      for (const [what, error, bytes] of cases) {
        raw.send(bytes);
        const reply = await raw.reader.read(isStructured ? 26 : 16);
        const wanted = error === EOVERFLOW && !isStructured ? EINVAL : error;
        assert.is(reply.readUInt32BE(isStructured ? 20 : 4), wanted, what);
      }
      raw.send(request({ type: 0, length: 512 }));
      await raw.reader.read((isStructured ? 28 : 16) + 512);
      raw.socket.destroy();
    }
  });
});

test("bytes that are no request end only that connection", async () => {
  await withServer([ramDisk(8 * MIB)], async (server) => {
    await undisturbed(server, async () => {
      for (const bytes of [
        request({ type: 0, magic: 0x25609514, length: 512 }),
        request({ type: 1, length: 0xffffffff }),
        golden("21e41c71 0000 0000 0000000000000001 0000000000000000 0000000000000200"),
      ]) {
        const raw = new RawClient(server.socketPath);
        await raw.begin("disk", true);
        raw.send(bytes);
        await raw.untilClosed();
      }
      for (const bytes of [Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(100_000, 255)]) {
        const raw = new RawClient(server.socketPath);
        raw.send(bytes);
        await raw.untilClosed();
      }
    });
  });
});

test("a client that disconnects in the middle of a request leaves nothing behind", async () => {
  await withServer([ramDisk(8 * MIB)], async (server) => {
    await undisturbed(server, async () => {
      for (let round = 0; round < 40; round++) {
        const raw = new RawClient(server.socketPath);
        await raw.begin("disk", round % 2 === 0);
        // Reads whose replies are never received, and a write that is never sent completely.
        for (let index = 0; index < 8; index++) raw.send(request({ type: 0, length: 2 * MIB }));
        raw.send(request({ type: 1, offset: BigInt(4 * MIB), length: MIB }), Buffer.alloc(300_000));
        await raw.reader.read(16);
        raw.socket.destroy();
        await raw.closed;
      }
    });
  });
});

test("clients that read no replies leave buffers for the others", async () => {
  const settings = { queueDepth: 8, maxIoBytes: 64 << 10, connectionsMax: 8 };
  await withServer(
    [ramDisk(8 * MIB)],
    async (server) => {
      await undisturbed(server, async () => {
        const stalled: RawClient[] = [];
        for (let index = 0; index < 6; index++) {
          const raw = new RawClient(server.socketPath);
          await raw.begin("disk", true);
          raw.socket.pause();
          for (let left = 20; left > 0; left--) raw.send(request({ type: 0, length: MIB }));
          stalled.push(raw);
        }
        const client = await NbdClient.connect(server.uri("disk"));
        for (let left = 50; left > 0; left--) await client.read(4 * MIB, MIB);
        await client.close();
        for (const raw of stalled) raw.socket.destroy();
      });
    },
    settings,
  );
});

test("payloads that never arrive keep no buffer from other clients", async () => {
  const settings = { queueDepth: 8, maxIoBytes: 64 << 10, connectionsMax: 8 };
  await withServer(
    [ramDisk(8 * MIB)],
    async (server) => {
      await undisturbed(server, async () => {
        const stalled: RawClient[] = [];
        for (let index = 0; index < 6; index++) {
          const raw = new RawClient(server.socketPath);
          await raw.begin("disk", true);
          raw.send(request({ type: 1, length: 64 << 10 }), Buffer.alloc(100));
          stalled.push(raw);
        }
        const client = await NbdClient.connect(server.uri("disk"));
        for (let left = 10; left > 0; left--) await client.read(4 * MIB, MIB);
        await client.close();
        for (const raw of stalled) raw.socket.destroy();
      });
    },
    settings,
  );
});

test("stalled handshakes are ended, also those that trickle byte by byte", async () => {
  await withServer(
    [ramDisk(8 * MIB)],
    async (server) => {
      await undisturbed(server, async () => {
        const silent = new RawClient(server.socketPath);
        const slow = new RawClient(server.socketPath);
        const timer = setInterval(() => slow.socket.writable && slow.send(Buffer.alloc(1)), 20);
        slow.send(u32(3), Buffer.from("IHAVEOPT"), u32(99, 60_000));
        await Promise.all([silent.untilClosed(), slow.untilClosed()]);
        clearInterval(timer);
        assert.ok((await server.counts()).stalled >= 2);
      });
    },
    { handshakeTimeoutMs: 300 },
  );
});

test("a thousand connections at once: the permitted number stays, and earlier ones are served", async () => {
  await withServer(
    [ramDisk(8 * MIB)],
    async (server) => {
      await undisturbed(server, async () => {
        const sockets = Array.from({ length: 1000 }, () => connect(server.socketPath));
        for (const socket of sockets) socket.on("error", () => undefined).resume();
        await eventually("all were taken or refused", async () => {
          const { connections, refused } = await server.counts();
          const failed = sockets.filter((one) => one.errored !== null && one.bytesRead === 0);
          return connections + refused - 1 + failed.length >= 1000;
        });
        const { connections } = await server.counts();
        assert.ok(connections >= 64, `${connections} connections`);
        for (const socket of sockets) socket.destroy();
      });
      // Their slots are free again.
      await eventually("a connection is taken", async () => {
        const client = await NbdClient.connect(server.uri("disk")).catch(() => undefined);
        await client?.close();
        return client !== undefined;
      });
    },
    { connectionsMax: 64 },
  );
});

test("a client that lists endlessly without reading is ended at its bound", async () => {
  await withServer([ramDisk(8 * MIB)], async (server) => {
    await undisturbed(server, async () => {
      const raw = new RawClient(server.socketPath);
      raw.send(u32(3), ...Array.from({ length: 10_000 }, () => nbdOption(3)));
      await raw.untilClosed();
    });
  });
});

test("replies that are unread when a client disconnects in order are still sent", async () => {
  await withServer([ramDisk(8 * MIB, { readOnly: true })], async (server) => {
    for (const isEof of [false, true]) {
      const raw = new RawClient(server.socketPath);
      await raw.begin("disk", true);
      for (let left = 16; left > 0; left--) raw.send(request({ type: 0, length: 65_536 }));
      raw.send(request({ type: 1, length: 512 }), Buffer.alloc(512));
      if (isEof) raw.socket.end();
      else raw.send(request({ type: 2 }));
      let have = 0;
      let refused = 0;
      for (let left = 17; left > 0; left--) {
        const header = await raw.reader.read(20);
        const data = await raw.reader.read(header.readUInt32BE(16));
        if (header.readUInt16BE(6) === 1) have += data.length - 8;
        else refused = data.readUInt32BE(0);
      }
      assert.is(have, 16 * 65_536);
      assert.is(refused, EPERM);
      await raw.untilClosed();
    }
  });
});

test.run();
